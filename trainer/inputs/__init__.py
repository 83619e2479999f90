"""Photos: sources, splits, batches, views."""
