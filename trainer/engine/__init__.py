"""Steps, numerics, checkpoints, log."""
