-- Objects that the committee agrees on in the frames of table `chosen`: the mean confidence over the members that know
-- the class (0 where such a member did not see the object), the confidence-weighted mean box, the surest member's class.
WITH objects AS (
    SELECT
        d.frame_id,
        d.match_id,
        arg_max(d."class", (d.confidence, d.detector)) AS class,
        sum(d.confidence) AS confidence_sum,
        sum(d.x1_px * d.confidence) / sum(d.confidence) AS x1_px,
        sum(d.y1_px * d.confidence) / sum(d.confidence) AS y1_px,
        sum(d.x2_px * d.confidence) / sum(d.confidence) AS x2_px,
        sum(d.y2_px * d.confidence) / sum(d.confidence) AS y2_px,
        list(d.detector ORDER BY d.detector) AS detectors
    FROM detections AS d
    SEMI JOIN chosen AS c ON c.frame_id = d.frame_id
    WHERE d.committee_id = $committee_id
    GROUP BY d.frame_id, d.match_id
)
SELECT
    o.frame_id, o.class, o.confidence_sum / k.members AS confidence, o.x1_px, o.y1_px, o.x2_px, o.y2_px, o.detectors
FROM objects AS o
JOIN (SELECT class, count(*) AS members FROM knows GROUP BY class) AS k USING (class)
WHERE o.confidence_sum / k.members >= $confidence AND o.x2_px > o.x1_px AND o.y2_px > o.y1_px
ORDER BY o.frame_id, confidence DESC, o.match_id
