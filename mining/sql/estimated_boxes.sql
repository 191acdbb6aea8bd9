-- Objects that the committee sees in each frame of table `named`: any member, at its threshold.
SELECT frame_id, count(DISTINCT match_id) AS boxes
FROM detections AS d
JOIN members AS m ON m.detector = d.detector AND d.confidence >= m.threshold
SEMI JOIN named AS n ON n.frame_id = d.frame_id
WHERE d.committee_id = $committee_id
GROUP BY frame_id
