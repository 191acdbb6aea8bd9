-- What two spans of nights hold, a row each: what came in, what failed, what one committee scored and against which reference.
WITH spans AS (
    SELECT * FROM (VALUES
        (false, $before_first::DATE, $before_last::DATE), (true, $after_first::DATE, $after_last::DATE)
    ) AS spans (is_after, first_night, last_night)
),
came AS (
    SELECT
        is_after, count(*) AS recordings, count_if(status = 'unreadable')::BIGINT AS unreadable,
        count(DISTINCT drive_id) AS drives, count(DISTINCT vehicle_id) AS vehicles,
        coalesce(sum(duration_s), 0) / 3600 AS hours
    FROM spans JOIN recordings ON night BETWEEN first_night AND last_night
    GROUP BY is_after
),
sampled AS (
    SELECT is_after, count(*) AS frames FROM spans JOIN frames ON night BETWEEN first_night AND last_night GROUP BY is_after
),
looked AS (
    SELECT is_after, count_if(status = 'failed')::BIGINT AS failed_frames
    FROM spans JOIN observations ON night BETWEEN first_night AND last_night
    WHERE committee_id = $committee_id
    GROUP BY is_after
),
scored AS (
    SELECT
        is_after, count(*) AS scored_frames, count_if(repeats_previous)::BIGINT AS repeats,
        list_sort(list(DISTINCT reference_id)) AS reference_ids
    FROM spans JOIN scores ON night BETWEEN first_night AND last_night
    WHERE committee_id = $committee_id
    GROUP BY is_after
)
SELECT
    coalesce(recordings, 0) AS recordings, coalesce(unreadable, 0) AS unreadable_recordings, coalesce(drives, 0) AS drives,
    coalesce(vehicles, 0) AS vehicles, coalesce(hours, 0) AS hours, coalesce(frames, 0) AS frames,
    coalesce(failed_frames, 0) AS failed_frames, coalesce(repeats, 0) AS repeated_frames,
    coalesce(scored_frames, 0) AS scored_frames, coalesce(reference_ids, []) AS reference_ids
FROM spans
LEFT JOIN came USING (is_after)
LEFT JOIN sampled USING (is_after)
LEFT JOIN looked USING (is_after)
LEFT JOIN scored USING (is_after)
ORDER BY is_after
