"""API keys, and how much they were used."""

import sqlalchemy as sa
from alembic import op

from service.storage.tables import Utc

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Makes them."""
    op.create_table(
        "keys",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("digest", sa.String(64), nullable=False, unique=True),
        sa.Column("rate", sa.Double, nullable=True),
        sa.Column("quota", sa.Integer, nullable=True),
        sa.Column("created", Utc, nullable=False),
        sa.Column("revoked", Utc, nullable=True),
    )
    op.create_table(
        "usage",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("day", sa.String(10), primary_key=True),
        sa.Column("requests", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    """Drops them."""
    op.drop_table("usage")
    op.drop_table("keys")
