"""Fault injection against real processes: ``make bench-robust``."""
