"""Runoff: what rain becomes; simple models always on, sizing of what keeps it."""
