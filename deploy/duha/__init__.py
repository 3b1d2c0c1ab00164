"""The ``duha`` command."""
