"""Lighting: inventory in the field's terms, programmes over nights, what they cost."""
