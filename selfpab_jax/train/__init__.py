"""The training loop and what it stands on: step, state, sharding, checkpoints, schedules, logs."""
