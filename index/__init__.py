"""A photo collection becomes shards and a catalog, and is searched."""
