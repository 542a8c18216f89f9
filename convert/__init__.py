"""PyTorch checkpoints to models of this project and back."""
