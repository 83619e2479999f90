"""The least search that reaches a recall, measured on held-out queries."""
