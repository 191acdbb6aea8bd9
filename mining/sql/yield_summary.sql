-- The measured frames of some batches (table `wanted`), with what a summary sets errors against: arm, slice, drive, and each
-- signal's percentile.
SELECT y.*, s.slice, coalesce(f.drive_id, y.frame_id) AS drive_id, c.* EXCLUDE (frame_id, committee_id)
FROM yields AS y
SEMI JOIN wanted USING (batch_id)
JOIN (SELECT batch_id, frame_id, slice FROM batch_frames) AS s USING (batch_id, frame_id)
LEFT JOIN (SELECT frame_id, drive_id FROM frames) AS f USING (frame_id)
LEFT JOIN (SELECT frame_id, committee_id, COLUMNS('_pct$') FROM scores) AS c USING (frame_id, committee_id)
ORDER BY y.batch_id, y.frame_id
