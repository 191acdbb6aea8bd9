-- What was recorded, looked at and scored, of the recordings in table `footage`, by the committee of the page.
WITH recorded AS (FROM recordings SEMI JOIN footage USING (recording_id)),
looked AS (
    SELECT status, recording_id FROM observations SEMI JOIN footage USING (recording_id) WHERE committee_id = $committee_id
)
SELECT
    (SELECT count(*) FROM recorded) AS recordings,
    (SELECT count(*) FROM recorded WHERE status = 'unreadable') AS unreadable,
    (SELECT count(*) FROM recorded WHERE status = 'partial') AS partial,
    (SELECT count(DISTINCT drive_id) FROM recorded) AS drives,
    (SELECT count(DISTINCT vehicle_id) FROM recorded) AS vehicles,
    (SELECT count(DISTINCT (drive_id, camera)) FROM recorded) AS cameras,
    (SELECT coalesce(sum(duration_s), 0) FROM recorded) AS duration_s,
    (SELECT coalesce(sum(size_bytes), 0)::BIGINT FROM recorded) AS size_bytes,
    (SELECT list(DISTINCT night::VARCHAR ORDER BY night::VARCHAR) FROM recorded) AS nights,
    (SELECT count(*) FROM frames SEMI JOIN footage USING (recording_id)) AS frames,
    (SELECT count(*) FROM looked) AS looked_at,
    (SELECT count(*) FROM looked WHERE status = 'failed') AS failed_frames,
    (SELECT count(*) FROM looked WHERE status = 'partial') AS partial_frames,
    (SELECT count(*) FROM pool) AS scored
