"""Networks and features that are trained from scratch, to compare with."""
