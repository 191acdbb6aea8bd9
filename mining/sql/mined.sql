-- One row a frame and committee: the frame, what was seen, its scores, and what became of it.
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
    EXISTS (FROM selections AS c WHERE c.frame_id = f.frame_id) AS chosen,
    EXISTS (FROM exports AS e WHERE e.frame_id = f.frame_id AND e.status = 'ok') AS exported
FROM frames AS f
JOIN recordings AS r USING (recording_id, night)
LEFT JOIN scores AS s USING (frame_id, night)
LEFT JOIN observations AS o ON o.frame_id = s.frame_id AND o.committee_id = s.committee_id AND o.night = s.night
