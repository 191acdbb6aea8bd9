-- What each member saw at its threshold in the frames of table `wanted`, and whether the committee disagrees about the
-- object: agreed is what every member that knows the object's class (that of its surest box) sees as that class.
WITH sure AS (
    SELECT d.frame_id, d.detector, d.box_index, d."class", d.confidence, d.x1_px, d.y1_px, d.x2_px, d.y2_px, d.match_id
    FROM detections AS d
    SEMI JOIN wanted USING (frame_id)
    JOIN members AS m ON m.detector = d.detector AND d.confidence >= m.threshold
    WHERE d.committee_id = $committee_id
),
objects AS (
    SELECT frame_id, match_id, arg_max("class", (confidence, detector)) AS class, count(DISTINCT "class") AS classes
    FROM sure
    GROUP BY frame_id, match_id
),
knowing AS (SELECT class, count(*) AS members FROM knows GROUP BY class),
agreed AS (
    SELECT o.frame_id, o.match_id
    FROM objects AS o
    JOIN sure AS s ON s.frame_id = o.frame_id AND s.match_id = o.match_id AND s."class" = o.class
    JOIN knows AS k ON k.detector = s.detector AND k.class = o.class
    JOIN knowing AS n ON n.class = o.class
    WHERE o.classes = 1
    GROUP BY o.frame_id, o.match_id, n.members
    HAVING count(DISTINCT s.detector) = n.members
)
SELECT
    s.*,
    NOT EXISTS (FROM agreed AS a WHERE a.frame_id = s.frame_id AND a.match_id = s.match_id) AS disagrees
FROM sure AS s
ORDER BY s.frame_id, s.detector, s.box_index
