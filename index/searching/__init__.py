"""Neighbours from the shards of a generation: planned, collected, scored exactly."""
