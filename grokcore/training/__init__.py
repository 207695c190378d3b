"""The step loop, its schedules, checkpoints and records."""
