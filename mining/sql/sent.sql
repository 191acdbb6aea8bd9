-- The images of a batch as they went out, in the order of its manifests, each once: as $vendor got it, where several did.
-- The store may not hold a frame any more.
SELECT
    e.frame_id, e.file_name, e.sha256, e.width_px, e.height_px, e.night, s.committee_id,
    f.frame_id IS NOT NULL AS is_there
FROM exports AS e
LEFT JOIN frames AS f USING (frame_id)
LEFT JOIN batch_frames AS s ON s.batch_id = e.batch_id AND s.frame_id = e.frame_id
WHERE e.batch_id = $batch_id AND e.status = 'ok'
QUALIFY row_number() OVER (PARTITION BY e.frame_id ORDER BY e.vendor = $vendor DESC, e.vendor) = 1
ORDER BY e.position
