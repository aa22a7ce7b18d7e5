"""Surfaces, jobs, fits and answers."""

import sqlalchemy as sa
from alembic import op

from service.storage.tables import Utc

revision = "0001"
down_revision = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "surfaces",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created", Utc, nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("report", sa.JSON, nullable=False),
        sa.Column("payload", sa.String(100), nullable=False),
    )
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("created", Utc, nullable=False),
        sa.Column("owner", sa.String(100), nullable=False),
        sa.Column("surface_id", sa.String(32), sa.ForeignKey("surfaces.id"), nullable=False),
        sa.Column("request", sa.JSON, nullable=False),
        sa.Column("cancelled", Utc, nullable=True),
    )
    op.create_table(
        "fits",
        sa.Column("id", sa.String(32), sa.ForeignKey("jobs.id"), primary_key=True),
        sa.Column("created", Utc, nullable=False),
        sa.Column("surface_id", sa.String(32), sa.ForeignKey("surfaces.id"), nullable=False),
        sa.Column("model", sa.String(50), nullable=False),
        sa.Column("record", sa.JSON, nullable=False),
        sa.Column("payload", sa.String(100), nullable=False),
    )
    for table in ("surfaces", "jobs", "fits"):
        op.create_index(f"ix_{table}_created", table, ["created", "id"])
    op.create_table(
        "answered",
        sa.Column("owner", sa.String(100), primary_key=True),
        sa.Column("operation", sa.String(100), primary_key=True),
        sa.Column("key", sa.String(255), primary_key=True),
        sa.Column("created", Utc, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("location", sa.String(200), nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
    )


def downgrade() -> None:
    """Drops them."""
    for table in ("answered", "fits", "jobs", "surfaces"):
        op.drop_table(table)
