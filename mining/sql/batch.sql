-- The frames of one batch with all that a delivery says of them, in the order of the batch.
SELECT
    s.frame_id, s.committee_id, s.rank, s.arm, s.slice, s.reason, s.hardness, s.estimated_boxes, s.night,
    f.recording_id, f.drive_id, f.vehicle_id, f.camera, f.captured_at, f.frame_index, f.pts_ns,
    r.uri, r.kind, r.width_px, r.height_px
FROM selections AS s
JOIN frames AS f USING (frame_id)
JOIN recordings AS r USING (recording_id)
WHERE s.batch_id = $batch_id
ORDER BY s.arm, s.rank
