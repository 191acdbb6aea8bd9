-- Runs of hard frames of one drive and camera: a gap longer than $max_gap_ns begins a new run (gaps and islands). A run
-- goes over the files that a drive is cut into, but not from one night into the next.
WITH hard AS (
    SELECT
        s.frame_id, s.hardness, f.drive_id, f.camera, f.recording_id, epoch_ns(f.captured_at) AS at_ns,
        f.speed_mps, f.latitude_deg, f.longitude_deg
    FROM scores AS s
    JOIN frames AS f USING (frame_id, night)
    WHERE s.committee_id = $committee_id AND s.night = $night AND s.hardness >= $min_hardness
),
marked AS (
    SELECT *, coalesce(at_ns - lag(at_ns) OVER one_camera > $max_gap_ns, true) AS starts
    FROM hard
    WINDOW one_camera AS (PARTITION BY drive_id, camera ORDER BY at_ns, frame_id)
),
numbered AS (
    SELECT *, count_if(starts) OVER (
        PARTITION BY drive_id, camera ORDER BY at_ns, frame_id ROWS UNBOUNDED PRECEDING
    ) AS run
    FROM marked
),
seen AS (
    SELECT d.frame_id, list(DISTINCT d."class") AS classes
    FROM detections AS d
    JOIN members AS m ON m.detector = d.detector AND d.confidence >= m.threshold
    WHERE d.committee_id = $committee_id AND d.night = $night
    GROUP BY d.frame_id
)
SELECT
    md5(concat_ws('|', drive_id, camera, min(at_ns), $committee_id))[:16] AS scene_id,
    $committee_id AS committee_id,
    drive_id,
    camera,
    arg_max(recording_id, (hardness, frame_id)) AS recording_id,
    list_sort(list_distinct(list(recording_id))) AS recording_ids,
    min(at_ns) AS start_ns,
    max(at_ns) AS end_ns,
    (max(at_ns) - min(at_ns)) / 1e9 AS duration_s,
    count(*)::INTEGER AS frames,
    avg(hardness)::FLOAT AS mean_hardness,
    max(hardness)::FLOAT AS peak_hardness,
    arg_max(frame_id, (hardness, frame_id)) AS peak_frame_id,
    list_sort(list_distinct(flatten(list(coalesce(classes, []))))) AS classes,
    min(speed_mps) AS speed_min_mps,
    max(speed_mps) AS speed_max_mps,
    min(latitude_deg) AS latitude_min_deg,
    max(latitude_deg) AS latitude_max_deg,
    min(longitude_deg) AS longitude_min_deg,
    max(longitude_deg) AS longitude_max_deg
FROM numbered
LEFT JOIN seen USING (frame_id)
GROUP BY drive_id, camera, run
HAVING count(*) >= $min_frames
ORDER BY peak_hardness DESC, scene_id
