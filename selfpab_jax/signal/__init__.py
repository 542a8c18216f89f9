"""Signals and spectrograms: pure functions in NumPy, with nothing known of files or models."""
