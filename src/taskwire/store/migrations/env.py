"""What Alembic runs to apply revisions: on the connection (and in the transaction) that ``migrate`` gives it."""

from alembic import context

from taskwire.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite can roll table changes back too; Alembic only assumes that it cannot.
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
