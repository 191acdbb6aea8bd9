-- One round of thinning in time: of the frames still open, those with the highest priority within $reach_us on both
-- sides, per drive and camera. Taking the peaks, dropping what lies too near, and asking again until nothing is open
-- gives just what a greedy walk by falling priority gives.
SELECT frame_id, drive_id, camera, at_us, priority
FROM open_frames
QUALIFY row(priority, frame_id) = max(row(priority, frame_id)) OVER (
    PARTITION BY drive_id, camera ORDER BY at_us
    RANGE BETWEEN $reach_us PRECEDING AND $reach_us FOLLOWING
)
