"""Recordings in, spectrogram records out, batches from records."""
