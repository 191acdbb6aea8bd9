-- What a review has changed of a batch: frames that it lost, those that took their places, those that came beside them; and of
-- each arm how many it held at first, and how many of these were dropped.
SELECT
    count_if(origin = 'chosen' AND dropped) AS dropped,
    count_if(origin = 'replacement' AND in_batch) AS replaced,
    count_if(origin = 'extra' AND in_batch) AS added,
    count_if(origin = 'chosen' AND arm = 'mined') AS chosen_mined,
    count_if(origin = 'chosen' AND arm = 'mined' AND dropped) AS dropped_mined,
    count_if(origin = 'chosen' AND arm = 'random') AS chosen_random,
    count_if(origin = 'chosen' AND arm = 'random' AND dropped) AS dropped_random
FROM batch_frames
WHERE batch_id = $batch_id
