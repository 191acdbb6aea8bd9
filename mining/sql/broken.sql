-- Recordings that could not be read, or not wholly, with the reason.
SELECT uri, status, error FROM recordings WHERE status <> 'ok' ORDER BY night, uri
