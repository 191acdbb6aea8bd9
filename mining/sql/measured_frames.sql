-- The frames of one batch (table `batch`: its rows of batch_frames) with the labels that stand, whether the detector has looked
-- at them, and whether the labels lack boxes that were bad ($losing: kinds of rejects).
SELECT
    s.frame_id,
    s.arm,
    t.import_id,
    coalesce(o.ran, false) AS ran,
    EXISTS (
        FROM label_rejects AS r
        WHERE r.import_id = t.import_id AND r.frame_id = s.frame_id AND list_contains($losing, r.kind)
    ) AS lost_boxes
FROM batch AS s
LEFT JOIN (SELECT DISTINCT frame_id, import_id FROM truth) AS t USING (frame_id)
LEFT JOIN (
    SELECT frame_id, box_count[$detector] IS NOT NULL AS ran
    FROM observations
    WHERE committee_id = $committee_id
) AS o USING (frame_id)
ORDER BY s.frame_id
