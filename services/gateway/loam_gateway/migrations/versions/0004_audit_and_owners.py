"""What acts changed, whose money a call spends, which key made which, and accounts that a tenant left behind.

Revision ID: 0004
Revises: 0003
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COLUMNS = """
ALTER TABLE holds ADD COLUMN byok boolean NOT NULL DEFAULT false;
ALTER TABLE entries ADD COLUMN byok boolean NOT NULL DEFAULT false;
COMMENT ON COLUMN entries.byok IS 'made with the tenant''s own credentials: it cost the platform nothing';

ALTER TABLE audit_log ADD COLUMN before jsonb, ADD COLUMN after jsonb;
COMMENT ON COLUMN audit_log.before IS 'the subject as it was, without secrets; NULL when the act made it';
COMMENT ON COLUMN audit_log.after IS 'the subject as it is since; NULL when the act ended it';

ALTER TABLE api_keys ADD COLUMN made_by text, ADD COLUMN daily_cap bigint CHECK (daily_cap >= 0);
COMMENT ON COLUMN api_keys.made_by IS 'the key it was made with, whose caps it spends under as well';

ALTER TABLE accounts ADD COLUMN retired_at timestamptz;
COMMENT ON COLUMN accounts.retired_at IS 'since when it takes no more holds: another has its tenant''s name';
ALTER TABLE accounts DROP CONSTRAINT accounts_tenant_scope_subject_period_window_start_key;
CREATE UNIQUE INDEX accounts_by_window ON accounts (tenant, scope, subject, period, window_start)
WHERE retired_at IS NULL;
"""


def upgrade() -> None:
    """Add the columns."""
    op.execute(COLUMNS)


def downgrade() -> None:
    """There is no way back from the ledger but a restored backup."""
    raise NotImplementedError("entries are never deleted; restore a backup to go back before this")
