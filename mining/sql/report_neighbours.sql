-- The sampled frames of the same drive and camera nearest in time to each frame of table `wanted`: $each before and after.
WITH asked AS (
    SELECT w.frame_id AS of_frame, f.drive_id, f.camera, epoch_us(f.captured_at) AS at_us
    FROM wanted AS w JOIN frames AS f USING (frame_id)
),
around AS (
    SELECT a.of_frame, f.frame_id, f.night, epoch_us(f.captured_at) - a.at_us AS dt_us
    FROM asked AS a
    JOIN frames AS f
        ON f.drive_id = a.drive_id AND f.camera = a.camera AND f.frame_id <> a.of_frame
        AND abs(epoch_us(f.captured_at) - a.at_us) <= $within_us
    QUALIFY row_number() OVER (PARTITION BY a.of_frame, dt_us < 0 ORDER BY abs(dt_us), f.frame_id) <= $each
)
SELECT n.of_frame, n.frame_id, n.dt_us / 1e6 AS dt_s, s.hardness
FROM around AS n
LEFT JOIN scores AS s ON s.frame_id = n.frame_id AND s.night = n.night AND s.committee_id = $committee_id
ORDER BY n.of_frame, n.dt_us, n.frame_id
