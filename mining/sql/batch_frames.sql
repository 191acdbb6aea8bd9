-- Every frame that select chose or a review found, and whether its batch holds it now. A place of the batch belongs to the
-- chosen frame, and after it to its replacements as they came: the first of them that nobody drops is in. A frame that a
-- reviewer asked for is in while somebody keeps it and nobody drops it. What no review has touched is in.
WITH said AS (
    SELECT batch_id, frame_id, bool_or(verdict = 'drop') AS dropped, bool_or(verdict IN ('keep', 'more')) AS kept
    FROM verdicts
    GROUP BY batch_id, frame_id
),
members AS (
    SELECT *, 'chosen' AS origin, frame_id AS place, '' AS review_id FROM selections
    UNION ALL BY NAME
    SELECT *, CASE WHEN place IS NULL THEN 'extra' ELSE 'replacement' END AS origin FROM additions
),
judged AS (
    SELECT m.*, coalesce(s.dropped, false) AS dropped, coalesce(s.kept, false) AS kept
    FROM members AS m
    LEFT JOIN said AS s USING (batch_id, frame_id)
)
SELECT
    * EXCLUDE (kept),
    NOT dropped AND CASE
        WHEN origin = 'extra' THEN kept
        ELSE row_number() OVER (PARTITION BY batch_id, place, dropped ORDER BY review_id) = 1
    END AS in_batch
FROM judged
