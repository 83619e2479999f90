"""Where photos come from, and how each file is read once."""
