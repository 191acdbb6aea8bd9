-- The verdicts that stand: of each reviewer and frame of a batch the last one, unless it was taken back.
SELECT * EXCLUDE (undoes)
FROM (
    FROM reviews
    QUALIFY row_number() OVER (PARTITION BY batch_id, frame_id, reviewer ORDER BY review_id DESC) = 1
)
WHERE verdict <> 'none'
