"""A collection looked at as a whole: which photos are near-duplicates of each other."""
