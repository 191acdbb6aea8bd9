-- The chosen frames with the words that explain them: the three signals that stand out most, by percentile.
WITH signals AS (
    UNPIVOT (SELECT c.frame_id, COLUMNS('_pct$') FROM candidates AS c SEMI JOIN chosen USING (frame_id))
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
        QUALIFY row_number() OVER (PARTITION BY frame_id ORDER BY percentile DESC, signal) <= 3
    )
    GROUP BY frame_id
),
objects AS (
    SELECT frame_id, count(DISTINCT match_id) AS boxes
    FROM detections AS d
    JOIN members AS m ON m.detector = d.detector AND d.confidence >= m.threshold
    SEMI JOIN chosen AS c ON c.frame_id = d.frame_id
    WHERE d.committee_id = $committee_id
    GROUP BY frame_id
)
SELECT
    $batch_id AS batch_id,
    c.frame_id,
    $committee_id AS committee_id,
    c.rank::INTEGER AS rank,
    c.arm,
    NULL::VARCHAR AS slice,
    CASE
        WHEN c.arm = 'random' THEN 'drawn at random from all eligible frames'
        ELSE concat(
            printf('hardness %.2f', m.hardness), '; ', coalesce(s.words, 'no signal'),
            CASE WHEN isfinite(c.distance) THEN printf('; %.2f from the nearest frame chosen before', c.distance) ELSE '' END
        )
    END AS reason,
    m.hardness,
    coalesce(o.boxes, 0)::FLOAT AS estimated_boxes
FROM chosen AS c
JOIN candidates AS m USING (frame_id)
LEFT JOIN strongest AS s USING (frame_id)
LEFT JOIN objects AS o USING (frame_id)
ORDER BY c.position
