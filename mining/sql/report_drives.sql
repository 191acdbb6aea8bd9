-- Hardness over time of some drives and cameras (table `shown`): of each of $points equal parts of a drive, its hardest frame.
WITH spans AS (
    SELECT drive_id, camera, min(epoch_us(captured_at)) AS start_us, max(epoch_us(captured_at)) AS end_us
    FROM pool SEMI JOIN shown USING (drive_id, camera)
    GROUP BY drive_id, camera
),
parts AS (
    SELECT
        s.drive_id, s.camera, s.start_us,
        floor((epoch_us(p.captured_at) - s.start_us) * $points / (s.end_us - s.start_us + 1)) AS part,
        (epoch_us(p.captured_at) - s.start_us) / 1e6 AS at_s, p.hardness
    FROM pool AS p JOIN spans AS s USING (drive_id, camera)
),
hardest AS (
    SELECT drive_id, camera, start_us, part, arg_max(at_s, hardness) AS at_s, max(hardness) AS hardness
    FROM parts GROUP BY ALL
)
SELECT
    drive_id, camera, make_timestamptz(start_us) AS started_at,
    list(round(at_s, 1) ORDER BY part) AS at_s, list(round(hardness, 3) ORDER BY part) AS hardness
FROM hardest
GROUP BY drive_id, camera, start_us
ORDER BY drive_id, camera
