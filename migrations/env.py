"""How alembic reaches the database. The one place that sees SQLAlchemy; revisions are plain SQL."""

from __future__ import annotations

from alembic import context
from sqlalchemy import create_engine, text

MIGRATION_LOCK = 0x436F7A79
"""Two releases at once take turns."""


def migrate() -> None:
    """Run the revisions in one transaction, alone: a failed release leaves the schema as it was."""
    url = context.config.attributes["database_url"]
    engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1))
    with engine.begin() as connection:
        connection.execute(text(f"SELECT pg_advisory_xact_lock({MIGRATION_LOCK})"))
        context.configure(connection=connection, transactional_ddl=True)
        context.run_migrations()
    engine.dispose()


migrate()
