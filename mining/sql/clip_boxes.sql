-- What each member of a committee saw, at or above its threshold, in sampled frames of one recording.
SELECT f.frame_index, d.detector, d."class", d.confidence, d.x1_px, d.y1_px, d.x2_px, d.y2_px
FROM detections AS d
JOIN members AS m ON m.detector = d.detector AND d.confidence >= m.threshold
JOIN frames AS f USING (frame_id, night)
WHERE d.committee_id = $committee_id AND f.recording_id = $recording_id AND f.frame_index BETWEEN $first AND $last
ORDER BY f.frame_index, d.detector, d.box_index
