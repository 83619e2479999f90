"""What a cosine of this index says about two photos: pairs, and the curve through them."""
