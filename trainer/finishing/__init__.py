"""From trained weights to a checkpoint in use, and its report."""
