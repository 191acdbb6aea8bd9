-- Everything that is known of one frame under one committee; no row where the store does not hold the frame.
SELECT
    f.frame_id, f.recording_id, f.drive_id, f.vehicle_id, f.camera, f.frame_index, f.captured_at, f.speed_mps,
    f.latitude_deg, f.longitude_deg, r.uri, r.tags, s.hardness, s.reference_id, o.luma_mean, o.sharpness,
    o.perceptual_hash, o.embedding, o.status, o.error
FROM frames AS f
JOIN recordings AS r USING (recording_id, night)
LEFT JOIN scores AS s ON s.frame_id = f.frame_id AND s.committee_id = $committee_id
LEFT JOIN observations AS o ON o.frame_id = f.frame_id AND o.committee_id = $committee_id
WHERE f.frame_id = $frame_id
