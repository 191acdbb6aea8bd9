-- The images of a batch as they went out, in the order of its manifests, each once: as $vendor got it, where several did.
-- A frame that the store does not hold any more has no size.
SELECT
    e.frame_id, e.image_uri, e.sha256, e.night, s.committee_id,
    r.width_px, r.height_px
FROM exports AS e
LEFT JOIN frames AS f USING (frame_id)
LEFT JOIN recordings AS r ON r.recording_id = f.recording_id
LEFT JOIN selections AS s ON s.batch_id = e.batch_id AND s.frame_id = e.frame_id
WHERE e.batch_id = $batch_id AND e.status = 'ok'
QUALIFY row_number() OVER (PARTITION BY e.frame_id ORDER BY e.vendor = $vendor DESC, e.vendor) = 1
ORDER BY s.arm, s.rank, e.frame_id
