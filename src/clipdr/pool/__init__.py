"""Stage `pool`: images with human texts as shards, and held-out tasks. Each kind of pool is the module of its name."""
