"""The JSON that goes out, as service clients see it."""
