"""What edge and backend agree on: pure data and pure functions, nothing else."""
