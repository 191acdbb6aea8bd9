-- Every frame that may be chosen: scored by this committee, seen by its primary member, wanted by the config's `where`
-- (a filter put on top of this query), and not within $reach_us of a frame that an earlier batch holds or that is
-- labelled (table `earlier`).
WITH too_near AS (
    SELECT DISTINCT f.frame_id
    FROM frames AS f
    JOIN earlier AS e
        ON e.drive_id = f.drive_id AND e.camera = f.camera AND abs(epoch_us(f.captured_at) - e.at_us) <= $reach_us
)
SELECT m.*
FROM mined AS m
SEMI JOIN wanted USING (recording_id)
ANTI JOIN too_near USING (frame_id)
WHERE m.committee_id = $committee_id AND m.hardness IS NOT NULL AND m.embedding IS NOT NULL
