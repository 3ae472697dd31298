"""Stage `pool`: real drawings and human words from pinned packages, as image-text shards and evaluation tasks."""
