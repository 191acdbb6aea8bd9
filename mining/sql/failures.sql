-- Of $recordings: how many there are, how many could not be read, their frames, and how many of these failed.
SELECT
    (SELECT count(*) FROM recordings WHERE list_contains($recordings, recording_id)) AS recordings,
    (SELECT count(*) FROM recordings WHERE list_contains($recordings, recording_id) AND status = 'unreadable') AS unreadable,
    (SELECT count(*) FROM frames WHERE list_contains($recordings, recording_id)) AS frames,
    (
        SELECT count(*) FROM observations
        WHERE list_contains($recordings, recording_id) AND committee_id = $committee_id AND status = 'failed'
    ) AS failed_frames
