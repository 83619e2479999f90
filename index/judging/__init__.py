"""What an index loses of its model's answers: by lists, codes, dimensions, exponent."""
