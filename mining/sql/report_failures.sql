-- Recordings in table `footage` that could not be read, or not wholly, or frames of which failed, the worst first.
WITH failed AS (
    SELECT recording_id, count(*) AS frames, min(error) AS error
    FROM observations SEMI JOIN footage USING (recording_id)
    WHERE committee_id = $committee_id AND status <> 'ok'
    GROUP BY recording_id
)
SELECT
    r.drive_id, r.camera, parse_filename(r.uri) AS file, r.status,
    r.error, f.frames AS failed_frames, f.error AS frame_error
FROM recordings AS r
SEMI JOIN footage USING (recording_id)
LEFT JOIN failed AS f USING (recording_id)
WHERE r.status <> 'ok' OR f.frames > 0
ORDER BY r.status = 'unreadable' DESC, f.frames DESC NULLS LAST, r.drive_id, r.camera, r.recording_id
