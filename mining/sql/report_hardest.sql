-- The hardest frames of table `pool`, one of each $gap_us of a drive and camera: what a night without a batch shows.
SELECT frame_id
FROM pool
QUALIFY row_number() OVER (
    PARTITION BY drive_id, camera, epoch_us(captured_at) // $gap_us ORDER BY hardness DESC, frame_id
) = 1
ORDER BY hardness DESC, frame_id
LIMIT $count
