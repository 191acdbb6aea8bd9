-- How many frames two committees gave a hardness: both, and each alone; and against which references where both did.
SELECT
    count_if(before.hardness IS NOT NULL AND after.hardness IS NOT NULL)::BIGINT AS both,
    count_if(before.hardness IS NOT NULL AND after.hardness IS NULL)::BIGINT AS only_before,
    count_if(before.hardness IS NULL AND after.hardness IS NOT NULL)::BIGINT AS only_after,
    list_sort(list(DISTINCT before.reference_id) FILTER (before.hardness + after.hardness IS NOT NULL AND before.reference_id IS NOT NULL)) AS references_before,
    list_sort(list(DISTINCT after.reference_id) FILTER (before.hardness + after.hardness IS NOT NULL AND after.reference_id IS NOT NULL)) AS references_after
FROM (FROM scores WHERE committee_id = $before AND night BETWEEN $first AND $last) AS before
FULL JOIN (FROM scores WHERE committee_id = $after AND night BETWEEN $first AND $last) AS after USING (frame_id, night)
