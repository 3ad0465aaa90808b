"""The ledger's transactions in fewer statements, accounts for every day, for makers of keys and for new owners.

Revision ID: 0006
Revises: 0005
"""

from loam_gateway.migrations.scripts import run_script

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_SCRIPTS = ("0006_ledger.sql", "0006_months.sql")


def upgrade() -> None:
    """Put the functions in place of the former ones, and the holds into one table."""
    for name in _SCRIPTS:
        run_script(name)


def downgrade() -> None:
    """There is no way back from the ledger but a restored backup."""
    raise NotImplementedError("entries are never deleted; restore a backup to go back before this")
