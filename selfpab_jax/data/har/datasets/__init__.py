"""One file a data set: its card and the reader of its published files."""
