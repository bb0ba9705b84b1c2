"""Which rows and shards are done, and what proves it: plan, fragments, commits, and their verification."""
