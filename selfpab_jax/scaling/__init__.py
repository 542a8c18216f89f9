"""Sweeps over data, subjects and sizes, and the laws fitted to them."""
