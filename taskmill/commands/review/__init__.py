"""The review page: people decide the overlapping pairs that rules left."""
