"""Runs migrations on the connection that `duha_backend.tables.upgrade` hands in."""

from alembic import context

from duha_backend.tables import meta

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=meta,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
