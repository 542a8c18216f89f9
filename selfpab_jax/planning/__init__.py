"""Plans of runs on devices that are not there: memory, traffic and time of the real step, compiled ahead of time."""
