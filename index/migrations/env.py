"""Run by alembic for one generation's tables, on the connection that publishes them."""

from alembic import context

given = context.config.attributes
context.configure(connection=given["connection"], version_table_schema=given["namespace"])
with context.begin_transaction():
    context.run_migrations()
