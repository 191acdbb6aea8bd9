-- Recordings that could not be read, or not wholly, with the reason: what their packets showed, and frames that then failed.
WITH failed AS (
    SELECT recording_id, count(*) AS failed, min(error) AS error
    FROM (SELECT recording_id, frame_id, min(error) AS error FROM observations WHERE status = 'failed' GROUP BY ALL)
    GROUP BY recording_id
),
looked AS (SELECT recording_id, count(DISTINCT frame_id) AS frames FROM observations GROUP BY recording_id)
SELECT
    uri,
    CASE WHEN status = 'ok' THEN 'partial' ELSE status END AS status,
    concat_ws('; ', r.error, f.failed || ' of ' || l.frames || ' frames failed: ' || f.error) AS error
FROM recordings AS r
LEFT JOIN failed AS f USING (recording_id)
LEFT JOIN looked AS l USING (recording_id)
WHERE status <> 'ok' OR f.failed > 0
ORDER BY night, uri
