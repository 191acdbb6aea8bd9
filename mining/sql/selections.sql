-- The chosen frames with the words that explain them: the slice that they fill, and the signals of hardness (table
-- `blended`) that stand out most, by percentile.
WITH found AS (
    SELECT s.* FROM scores AS s SEMI JOIN chosen USING (frame_id) WHERE s.committee_id = $committee_id
),
signals AS (
    UNPIVOT (SELECT frame_id, COLUMNS('_pct$') FROM found)
    ON COLUMNS('_pct$') INTO NAME signal VALUE percentile
),
strongest AS (
    SELECT
        frame_id,
        string_agg(
            printf('%s %.0f %%', replace(signal, '_pct', ''), 100 * percentile), ', ' ORDER BY percentile DESC, signal
        ) AS words
    FROM (
        FROM signals
        SEMI JOIN blended USING (signal)
        QUALIFY row_number() OVER (PARTITION BY frame_id ORDER BY percentile DESC, signal) <= 3
    )
    GROUP BY frame_id
)
SELECT
    $batch_id AS batch_id,
    c.frame_id,
    $committee_id AS committee_id,
    c.rank::INTEGER AS rank,
    c.arm,
    c.slice,
    CASE
        WHEN c.arm = 'random' THEN 'drawn at random from all eligible frames'
        ELSE concat(
            CASE WHEN c.slice IS NOT NULL THEN concat('for the slice ', c.slice, '; ') END,
            printf('hardness %.2f', f.hardness), '; ', coalesce(s.words, 'no signal'),
            CASE WHEN isfinite(c.distance) THEN printf('; %.2f from the nearest frame chosen before', c.distance) END
        )
    END AS reason,
    f.hardness,
    CASE WHEN isfinite(c.distance) THEN c.distance END AS distance_to_chosen,
    c.boxes AS estimated_boxes
FROM chosen AS c
JOIN found AS f USING (frame_id)
LEFT JOIN strongest AS s USING (frame_id)
ORDER BY c.position
