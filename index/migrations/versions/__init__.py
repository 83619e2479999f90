"""One file a revision, never changed once it was published with."""
