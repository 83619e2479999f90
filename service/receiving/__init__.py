"""What a client sends, taken in within bounds: heads, bodies, photos."""
