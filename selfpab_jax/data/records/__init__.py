"""Spectrogram records: built once from recordings, read many times."""
