"""The backend: ingest, stores, control, API and the operators' page."""
