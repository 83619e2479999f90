"""HTTP: the photos of an index that look like a given one."""
