"""The TFDS builder of spectrogram records."""
