-- The $count frames of view `looked_at` whose embeddings lie nearest to $example (Euclidean), the nearest first, with what
-- tells where they come from. A frame that its recording no longer samples has no drive_id.
WITH nearest AS (
    SELECT frame_id, list_distance(embedding, $example::FLOAT[]) AS distance
    FROM looked_at
    WHERE committee_id = $committee_id AND embedding IS NOT NULL
    ORDER BY distance, frame_id
    LIMIT $count
)
SELECT
    n.frame_id, n.distance::FLOAT AS distance, f.drive_id, f.camera, f.captured_at, s.hardness, r.uri, f.frame_index
FROM nearest AS n
LEFT JOIN frames AS f USING (frame_id)
LEFT JOIN recordings AS r USING (recording_id)
LEFT JOIN scores AS s ON s.frame_id = n.frame_id AND s.committee_id = $committee_id
ORDER BY n.distance, n.frame_id
