-- Errors a frame of the mined arm over those of the random arm, over every batch that was measured; NULL where an arm has none.
SELECT avg(errors) FILTER (arm = 'mined') / nullif(avg(errors) FILTER (arm = 'random'), 0) AS lift
FROM yields
