-- One row a frame and committee: the frame, what was seen, its scores, and what became of it.
-- `night` stands beside frame_id in joins so that a condition on it prunes the files of every table; not beside
-- recording_id, for then DuckDB may begin by joining recordings to scores on nothing but the night.
SELECT
    f.*,
    r.uri,
    r.kind,
    r.width_px,
    r.height_px,
    r.frame_rate_hz,
    r.tags,
    s.* EXCLUDE (frame_id, recording_id, drive_id, night, status, error),
    o.luma_mean,
    o.sharpness,
    o.overexposed_share,
    o.perceptual_hash,
    o.embedding,
    o.status,
    o.error,
    EXISTS (FROM batch_frames AS c WHERE c.frame_id = f.frame_id AND (c.in_batch OR c.origin <> 'extra')) AS chosen,
    EXISTS (FROM exports AS e WHERE e.frame_id = f.frame_id AND e.status = 'ok') AS exported,
    EXISTS (FROM labels AS l WHERE l.frame_id = f.frame_id) AS labelled
FROM frames AS f
JOIN recordings AS r ON r.recording_id = f.recording_id
LEFT JOIN scores AS s ON s.frame_id = f.frame_id AND s.night = f.night
LEFT JOIN observations AS o ON o.frame_id = s.frame_id AND o.committee_id = s.committee_id AND o.night = s.night
