-- Objects that the committee agrees on in the frames of table `chosen`. An object's class is that of its surest box; its
-- confidence is the mean of the members' scores for that class, over the members that know it (table `knows`), 0 where
-- such a member did not see the object; its box is the mean of its boxes, weighted by their confidence. `votes` is what each
-- member took it for. Sums have an order: the same rows make the same bytes.
WITH seen AS (
    SELECT d.*
    FROM detections AS d
    SEMI JOIN chosen USING (frame_id)
    WHERE d.committee_id = $committee_id
),
objects AS (
    SELECT
        frame_id,
        match_id,
        arg_max("class", (confidence, detector)) AS class,
        sum(x1_px * confidence ORDER BY detector) / sum(confidence ORDER BY detector) AS x1_px,
        sum(y1_px * confidence ORDER BY detector) / sum(confidence ORDER BY detector) AS y1_px,
        sum(x2_px * confidence ORDER BY detector) / sum(confidence ORDER BY detector) AS x2_px,
        sum(y2_px * confidence ORDER BY detector) / sum(confidence ORDER BY detector) AS y2_px,
        list(detector ORDER BY detector) AS detectors,
        list({'detector': detector, 'class': "class", 'confidence': confidence} ORDER BY detector) AS votes
    FROM seen
    GROUP BY frame_id, match_id
),
agreed AS (
    SELECT o.frame_id, o.match_id, sum(s.class_scores[k.class_index] ORDER BY s.detector) / any_value(k.members) AS confidence
    FROM objects AS o
    JOIN seen AS s USING (frame_id, match_id)
    JOIN (SELECT *, count(*) OVER (PARTITION BY class) AS members FROM knows) AS k
        ON k.class = o.class AND k.detector = s.detector
    GROUP BY o.frame_id, o.match_id
)
SELECT o.frame_id, o.class, a.confidence, o.x1_px, o.y1_px, o.x2_px, o.y2_px, o.detectors, o.votes
FROM objects AS o
JOIN agreed AS a USING (frame_id, match_id)
WHERE a.confidence >= $confidence AND o.x2_px > o.x1_px AND o.y2_px > o.y1_px
ORDER BY o.frame_id, a.confidence DESC, o.match_id
