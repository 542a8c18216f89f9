"""Frozen features: the pre-trained encoder, extraction, the cache, and features of long recordings."""
