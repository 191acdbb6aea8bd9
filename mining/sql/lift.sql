-- Errors of the mined frames over those expected of them at the rate of their own batch's random frames, all batches together
-- (as `mining measure` says it per frame); NULL where no batch has both arms.
WITH arms AS (
    SELECT
        batch_id,
        count_if(arm = 'mined') AS mined, sum(errors) FILTER (arm = 'mined') AS mined_errors,
        count_if(arm = 'random') AS random, sum(errors) FILTER (arm = 'random') AS random_errors
    FROM yields
    GROUP BY batch_id
    HAVING mined > 0 AND random > 0
)
SELECT sum(mined_errors) / nullif(sum(mined * random_errors / random), 0) AS lift
FROM arms
