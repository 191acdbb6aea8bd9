-- Every frame that may be chosen: scored by this committee, seen by its primary member, wanted by the config's `where`
-- (a filter put on top of this query), and not within $reach_us of a frame that an earlier batch holds.
SELECT m.*
FROM mined AS m
SEMI JOIN wanted AS w ON w.recording_id = m.recording_id
ANTI JOIN earlier AS e
    ON e.drive_id = m.drive_id AND e.camera = m.camera
    AND abs(epoch_us(m.captured_at) - e.at_us) <= $reach_us
WHERE m.committee_id = $committee_id AND m.hardness IS NOT NULL AND m.embedding IS NOT NULL
