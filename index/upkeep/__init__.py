"""Damage found by comparison and mended from what is left."""
