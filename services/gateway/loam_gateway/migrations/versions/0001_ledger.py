"""Tenants, models, keys, budgets and the ledger.

Revision ID: 0001
"""

from alembic import op

from loam_gateway.migrations.scripts import run_script

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SCRIPTS = ("0001_tables.sql", "0001_months.sql", "0001_ledger.sql")


def upgrade() -> None:
    """Make the tables, the ledger's functions, and the partitions of the next months."""
    for name in _SCRIPTS:
        run_script(name)
    op.execute("SELECT keep_months(ahead => 3, retention => 24, clock_offset => interval '0')")


def downgrade() -> None:
    """There is no way back from the ledger but a restored backup."""
    raise NotImplementedError("entries are never deleted; restore a backup to go back before the ledger")
