"""Energy: what was measured, what it should have been, and what was saved."""
