-- All that a page says of single frames (table `wanted`: frame_id and how it was chosen), in the order of the batch.
SELECT
    w.frame_id, w.position, w.rank, w.arm, w.slice, w.reason, w.estimated_boxes, w.distance_to_chosen,
    f.recording_id, f.drive_id, f.vehicle_id, f.camera, f.captured_at, f.frame_index, f.night,
    f.speed_mps, f.latitude_deg, f.longitude_deg,
    r.width_px, r.height_px, r.tags,
    o.luma_mean, o.sharpness, o.status, o.error,
    s.* EXCLUDE (frame_id, committee_id, recording_id, drive_id, night, status, error)
FROM wanted AS w
LEFT JOIN frames AS f ON f.frame_id = w.frame_id
LEFT JOIN recordings AS r ON r.recording_id = f.recording_id
LEFT JOIN scores AS s ON s.frame_id = w.frame_id AND s.committee_id = $committee_id
LEFT JOIN observations AS o ON o.frame_id = w.frame_id AND o.committee_id = $committee_id
ORDER BY w.position
