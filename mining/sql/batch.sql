-- The frames of one batch (table `batch`: its rows of batch_frames) with all that a delivery says of them, in the order of
-- the batch. A frame whose recording was indexed otherwise since, or lies at another site, has no recording_id here.
SELECT
    s.frame_id, s.committee_id, s.rank, s.arm, s.slice, s.reason, s.hardness, s.estimated_boxes,
    f.recording_id, f.drive_id, f.vehicle_id, f.camera, f.captured_at, f.frame_index, f.pts_ns,
    r.uri, r.kind, r.width_px, r.height_px, r.size_bytes, r.modified_ns
FROM batch AS s
LEFT JOIN frames AS f USING (frame_id)
LEFT JOIN recordings AS r ON r.recording_id = f.recording_id
ORDER BY s.arm, s.rank
