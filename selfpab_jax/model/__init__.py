"""The encoder and the masked-reconstruction task: pure and jittable."""
