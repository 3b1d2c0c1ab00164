"""The way of a registry from its first form to its present one (Alembic)."""
