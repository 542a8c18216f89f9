"""Where recordings come from, and the checks that they pass."""
