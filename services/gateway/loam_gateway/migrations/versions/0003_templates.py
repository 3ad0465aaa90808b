"""Prompt templates of tenants.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

# They are told, compared and read as a whole, so a tenant's set is one value.
TABLES = """
CREATE TABLE prompt_templates (
    tenant text PRIMARY KEY REFERENCES tenants ON DELETE CASCADE,
    templates jsonb NOT NULL,
    updated_at timestamptz NOT NULL DEFAULT now()
);
"""


def upgrade() -> None:
    """Make the table."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop the table with all that is in it."""
    op.execute("DROP TABLE prompt_templates")
