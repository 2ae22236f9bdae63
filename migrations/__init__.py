"""The shape of the database, as alembic revisions in plain SQL."""
