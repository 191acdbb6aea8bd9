-- The labels that stand: of each frame the newest delivery, and of that what counts as truth.
SELECT l.*
FROM labels AS l
WHERE l.is_truth
QUALIFY rank() OVER (PARTITION BY l.frame_id ORDER BY l.imported_at DESC, l.import_id DESC) = 1
