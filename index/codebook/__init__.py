"""Which code a collection gets, how its centroids are trained, and what it takes."""
