-- What each annotator drew in the frames of table `named`, in the labels that stand: one row a box, or one without a class
-- where the annotator found the frame empty. Boxes that were fused from these are left out.
SELECT l.frame_id, coalesce(l.annotator, '') AS annotator, l.vendor, l."class", l.vendor_class,
       l.x1_px, l.y1_px, l.x2_px, l.y2_px, l.ignore
FROM labels AS l
SEMI JOIN named AS n ON n.frame_id = l.frame_id
SEMI JOIN truth AS t ON t.frame_id = l.frame_id AND t.import_id = l.import_id
WHERE NOT l.is_fused
ORDER BY l.frame_id, annotator, l.label_index
