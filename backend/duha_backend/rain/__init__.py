"""Rain: its quality, its sums, its field over the city, its events."""
