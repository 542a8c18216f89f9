"""What a model reconstructs on held-out windows, in figures and pictures."""
