"""Alerts about budgets, and the outbox of the messages that tell people of them.

Revision ID: 0005
Revises: 0004
"""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

# An alert copies what it says of its account, which goes on being spent and is dropped with its month. Accounts are
# hot; nothing in the index on them changes when money moves, so their updates stay within the page.
TABLES = """
CREATE TABLE budget_alerts (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    account bigint NOT NULL,
    tenant text NOT NULL,
    scope budget_scope NOT NULL,
    subject text NOT NULL,
    period budget_period NOT NULL,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    percent integer NOT NULL CHECK (percent BETWEEN 1 AND 100),
    cap bigint NOT NULL,
    spent bigint NOT NULL,
    raised_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (account, percent, cap)
);
CREATE INDEX budget_alerts_by_tenant ON budget_alerts (tenant, raised_at);
COMMENT ON TABLE budget_alerts IS 'an account is a budget in one window, so each percent of a cap is told once in it';

CREATE TABLE alert_deliveries (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    alert uuid NOT NULL REFERENCES budget_alerts ON DELETE CASCADE,
    channel text NOT NULL CHECK (channel IN ('slack', 'email')),
    recipient text NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz DEFAULT now(),
    tried_at timestamptz,
    sent_at timestamptz,
    reason text,
    message text,
    UNIQUE (alert, channel, recipient)
);
CREATE INDEX alert_deliveries_due ON alert_deliveries (next_attempt_at) WHERE next_attempt_at IS NOT NULL;
CREATE INDEX alert_deliveries_troubled ON alert_deliveries (tried_at) WHERE reason IS NOT NULL;
COMMENT ON COLUMN alert_deliveries.next_attempt_at IS 'NULL once it is sent or given up; moved on by whoever claims it';
COMMENT ON COLUMN alert_deliveries.reason IS 'why the last attempt failed; NULL when it did not';

CREATE INDEX accounts_capped ON accounts (window_end) WHERE cap > 0 AND retired_at IS NULL;
"""


def upgrade() -> None:
    """Make the tables."""
    op.execute(TABLES)


def downgrade() -> None:
    """Drop the tables with all that is in them."""
    op.execute("DROP INDEX accounts_capped")
    op.execute("DROP TABLE alert_deliveries, budget_alerts")
