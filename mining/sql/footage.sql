-- Frames of these recordings, and those around the frames of the latest batches, with their embeddings; in no order.
WITH wanted_footage AS (
    SELECT unnest($recordings::VARCHAR[]) AS recording_id
), numbered AS (
    SELECT recording_id, row_number() OVER (ORDER BY recording_id) AS recording
    FROM (FROM wanted_footage UNION SELECT recording_id FROM latest)
)
SELECT f.frame_id, n.recording, f.pts_ns / 1e9 AS time_s, o.embedding
FROM frames AS f
JOIN numbered AS n USING (recording_id)
JOIN observations AS o USING (frame_id)
WHERE o.committee_id = $committee_id
    AND o.embedding IS NOT NULL
    AND (
        f.recording_id IN (FROM wanted_footage)
        OR EXISTS (
            FROM latest AS l WHERE l.recording_id = f.recording_id AND abs(l.pts_ns - f.pts_ns) <= $around_ns
        )
    )
