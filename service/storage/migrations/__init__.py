"""Alembic: how the tables came to be what they are; `Database.migrate` runs it."""
