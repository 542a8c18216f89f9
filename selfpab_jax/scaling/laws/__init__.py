"""Scaling laws: forms, fits, intervals and the choice between forms."""
