"""From a test set to its scores: embedding, exact search, metrics, intervals, expectations."""
