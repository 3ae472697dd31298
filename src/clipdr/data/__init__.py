"""Everything that reads samples: shards, the subset of a pool, stored views, batches."""
