-- Of $recordings, those that were not read wholly, or of which a frame failed.
SELECT recording_id FROM recordings WHERE list_contains($recordings, recording_id) AND status <> 'ok'
UNION
SELECT recording_id FROM observations WHERE list_contains($recordings, recording_id) AND status <> 'ok'
