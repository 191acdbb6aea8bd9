-- The frames of a batch, and what tells how near they are to a frame: in time, and as pictures.
SELECT
    s.frame_id, s.rank, s.arm, s.slice, s.hardness, f.drive_id, f.camera, epoch_us(f.captured_at) AS at_us,
    o.perceptual_hash, o.embedding
FROM selections AS s
JOIN frames AS f USING (frame_id)
LEFT JOIN observations AS o ON o.frame_id = s.frame_id AND o.committee_id = s.committee_id
WHERE s.batch_id = $batch_id
ORDER BY s.arm, s.rank
