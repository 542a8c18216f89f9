"""Sweeps: many runs from one file, on any number of machines."""
