"""One file a resource: what is asked for, what is answered."""
