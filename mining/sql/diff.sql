-- Frames of two batches by arm, drive and slice, where they differ.
WITH chosen AS (
    SELECT s.batch_id, s.frame_id, s.arm, s.slice, f.drive_id
    FROM selections AS s
    LEFT JOIN frames AS f USING (frame_id)
    WHERE s.batch_id IN ($one, $two)
),
named AS (
    SELECT batch_id, concat('arm ', arm) AS what, 1 AS part FROM chosen
    UNION ALL
    SELECT batch_id, concat('for the slice ', slice), 2 FROM chosen WHERE slice IS NOT NULL
    UNION ALL
    SELECT batch_id, concat('drive ', drive_id), 3 FROM chosen
)
SELECT what, count(*) FILTER (batch_id = $one) AS first, count(*) FILTER (batch_id = $two) AS second
FROM named
GROUP BY what, part
HAVING first <> second
ORDER BY part, abs(second - first) DESC, what
