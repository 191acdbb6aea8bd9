-- Frames of two spans of nights that one committee gave a hardness, with what they are parted by beside the columns of `mined`.
SELECT
    m.*,
    night BETWEEN $after_first AND $after_last AS is_after,
    -- Without a position `is_night` goes by brightness, and knows no twilight.
    CASE
        WHEN is_night THEN 'night'
        WHEN sun_elevation_deg < 0 THEN 'twilight'
        WHEN NOT is_night THEN 'day'
    END AS light,
    format('{:02d} to {:02d} h UTC', hour(captured_at) // 3 * 3, hour(captured_at) // 3 * 3 + 3) AS hours
FROM mined AS m
WHERE committee_id = $committee_id
    AND hardness IS NOT NULL
    AND (night BETWEEN $before_first AND $before_last OR night BETWEEN $after_first AND $after_last)
