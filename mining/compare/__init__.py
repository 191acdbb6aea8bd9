"""``mining compare`` and ``mining diff``: two nights, two committees on the same footage, two batches."""
