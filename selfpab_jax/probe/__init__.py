"""Labeled recordings, frozen features, heads, scores: what an encoder is worth downstream."""
