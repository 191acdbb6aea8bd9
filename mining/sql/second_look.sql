-- Labels that stand, and objects that they lack, which the committee contradicts: worth a second look, the worst first. One
-- row for each label and fault. Down to here the list is far richer in errors than the labels are (docs/labels.md).
SELECT *
FROM (
    SELECT
        batch_id, frame_id, import_id, 'badly_placed' AS kind, location_quality AS quality,
        class, seen_class, label_index, annotator, NULL::VARCHAR[] AS detectors, x1_px, y1_px, x2_px, y2_px
    FROM truth
    WHERE location_quality < 0.6
    UNION ALL
    SELECT
        batch_id, frame_id, import_id, 'swapped', class_quality,
        class, seen_class, label_index, annotator, NULL, x1_px, y1_px, x2_px, y2_px
    FROM truth
    WHERE class_quality < 0.6
    UNION ALL
    SELECT
        o.batch_id, o.frame_id, o.import_id, 'overlooked', o.overlooked_quality,
        NULL, o.class, NULL, NULL, o.detectors, o.x1_px, o.y1_px, o.x2_px, o.y2_px
    FROM overlooked AS o
    SEMI JOIN truth USING (frame_id, import_id)
    WHERE o.overlooked_quality < 0.6
)
ORDER BY quality, frame_id, kind, label_index, x1_px
