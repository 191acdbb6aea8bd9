-- How many sampled frames of $recordings no committee has looked at yet.
SELECT count(*)
FROM frames AS f
ANTI JOIN observations AS o ON o.frame_id = f.frame_id
WHERE list_contains($recordings, f.recording_id)
