-- One row a night: what came in, how far it got, what failed. A frame counts once, whatever committees and batches hold it.
WITH nights AS (
    SELECT night, count(*) AS recordings, count_if(status = 'partial')::BIGINT AS partial,
           count_if(status = 'unreadable')::BIGINT AS unreadable
    FROM recordings GROUP BY night
),
per_frame AS (SELECT night, count(*) AS frames FROM frames GROUP BY night),
looked AS (
    SELECT night, count(DISTINCT frame_id) AS detected, count(DISTINCT frame_id) FILTER (status = 'failed') AS failed
    FROM observations GROUP BY night
),
scored AS (SELECT night, count(DISTINCT frame_id) AS scored FROM scores GROUP BY night),
picked AS (
    SELECT night, count(*) AS chosen FROM frames
    SEMI JOIN (FROM batch_frames WHERE in_batch) USING (frame_id) GROUP BY night
),
known AS (SELECT night, count(*) AS labelled FROM frames SEMI JOIN labels USING (frame_id) GROUP BY night)
SELECT
    night, recordings, partial, unreadable,
    coalesce(frames, 0) AS frames,
    coalesce(detected, 0) AS detected,
    coalesce(failed, 0) AS failed_frames,
    coalesce(scored, 0) AS scored,
    coalesce(chosen, 0) AS chosen,
    coalesce(labelled, 0) AS labelled
FROM nights
LEFT JOIN per_frame USING (night)
LEFT JOIN looked USING (night)
LEFT JOIN scored USING (night)
LEFT JOIN picked USING (night)
LEFT JOIN known USING (night)
ORDER BY night
