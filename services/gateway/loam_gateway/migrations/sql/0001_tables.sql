-- Money is bigint nano-dollars, prices are bigint nano-dollars per million units, hashes are SHA-256.

CREATE TABLE tenants (
    name text PRIMARY KEY,
    uid text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}',
    suspended boolean NOT NULL DEFAULT false,
    active boolean NOT NULL DEFAULT true,
    deleted_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN tenants.active IS 'false once the Tenant is being deleted; its rows stay as long as its ledger does';

CREATE TABLE models (
    name text PRIMARY KEY,
    uid text NOT NULL,
    spec jsonb NOT NULL,
    credential bytea,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON COLUMN models.credential IS 'the provider''s key, encrypted';

CREATE TABLE api_keys (
    tenant text NOT NULL REFERENCES tenants ON DELETE CASCADE,
    key_id text NOT NULL,
    name text NOT NULL,
    scopes text[] NOT NULL DEFAULT '{}',
    user_id text,
    workload text,
    monthly_cap bigint CHECK (monthly_cap >= 0),
    expires_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, key_id)
);
COMMENT ON COLUMN api_keys.monthly_cap IS 'as it was asked for; what counts is the policy of scope key';

CREATE TABLE key_hashes (
    sha256 bytea PRIMARY KEY CHECK (length(sha256) = 32),
    tenant text NOT NULL,
    key_id text NOT NULL,
    expires_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    FOREIGN KEY (tenant, key_id) REFERENCES api_keys ON DELETE CASCADE
);
CREATE INDEX key_hashes_by_key ON key_hashes (tenant, key_id);

CREATE TYPE budget_scope AS ENUM ('tenant', 'user', 'key', 'run');
CREATE TYPE budget_period AS ENUM ('day', 'month', 'total');

CREATE TABLE budget_policies (
    tenant text NOT NULL,
    scope budget_scope NOT NULL,
    subject text NOT NULL,
    period budget_period NOT NULL,
    origin text NOT NULL CHECK (origin IN ('manifest', 'tenant')),
    cap bigint NOT NULL CHECK (cap >= 0),
    updated_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, scope, subject, period, origin)
);
COMMENT ON TABLE budget_policies IS 'caps as they are wished for; the lowest of those that apply to an account counts';
COMMENT ON COLUMN budget_policies.subject IS 'user, key id, * for every user, nothing for the tenant itself';

CREATE TABLE accounts (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant text NOT NULL,
    scope budget_scope NOT NULL,
    subject text NOT NULL,
    period budget_period NOT NULL,
    window_start timestamptz NOT NULL,
    window_end timestamptz NOT NULL,
    cap bigint CHECK (cap >= 0),
    held bigint NOT NULL DEFAULT 0 CHECK (held >= 0),
    posted bigint NOT NULL DEFAULT 0,
    overrun bigint NOT NULL DEFAULT 0 CHECK (overrun >= 0),
    created_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (tenant, scope, subject, period, window_start),
    CONSTRAINT accounts_within_cap CHECK (held + posted <= cap + overrun)
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000);
COMMENT ON TABLE accounts IS 'one row per budget and window; hot, so kept small and half empty for in-page updates';
COMMENT ON COLUMN accounts.cap IS 'NULL when nothing caps it';
COMMENT ON COLUMN accounts.overrun IS 'how far it stands above its cap: a posting or a lowered cap never fails';

CREATE TABLE holds (
    request_id uuid NOT NULL,
    held_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    nanos bigint NOT NULL CHECK (nanos >= 0),
    output_tokens bigint NOT NULL,
    accounts bigint[] NOT NULL,
    root_request_id text NOT NULL,
    kind text NOT NULL,
    tenant text NOT NULL,
    key_id text NOT NULL,
    user_id text,
    run text,
    pipeline text,
    agent text,
    model text NOT NULL,
    markup_ppm bigint NOT NULL CHECK (markup_ppm >= 0),
    claim text,
    PRIMARY KEY (request_id, held_at)
) PARTITION BY RANGE (held_at);
CREATE INDEX holds_by_deadline ON holds (expires_at);
COMMENT ON COLUMN holds.accounts IS 'each of them has `nanos` held for this request';
COMMENT ON COLUMN holds.claim IS 'the Idempotency-Key that was claimed with it';

CREATE TABLE entries (
    request_id uuid NOT NULL,
    held_at timestamptz NOT NULL,
    posted_at timestamptz NOT NULL,
    kind text NOT NULL,
    outcome text NOT NULL,
    estimated boolean NOT NULL,
    corrects uuid,
    tenant text NOT NULL,
    key_id text NOT NULL,
    user_id text,
    run text,
    pipeline text,
    agent text,
    root_request_id text NOT NULL,
    model text NOT NULL,
    provider text NOT NULL,
    region text NOT NULL,
    input_tokens bigint NOT NULL,
    output_tokens bigint NOT NULL,
    cache_read_tokens bigint NOT NULL,
    cache_write_tokens bigint NOT NULL,
    queries bigint NOT NULL,
    input_price bigint NOT NULL,
    output_price bigint NOT NULL,
    cache_read_price bigint NOT NULL,
    cache_write_price bigint NOT NULL,
    query_price bigint NOT NULL,
    held bigint NOT NULL,
    cost bigint NOT NULL,
    markup bigint NOT NULL,
    saving bigint NOT NULL,
    accounts bigint[] NOT NULL,
    PRIMARY KEY (request_id, held_at)
) PARTITION BY RANGE (held_at);
CREATE INDEX entries_by_tenant ON entries (tenant, held_at);
COMMENT ON COLUMN entries.accounts IS 'each of them has `cost` posted by this entry';
COMMENT ON COLUMN entries.markup IS 'beyond the cost, outside of every cap';

CREATE TABLE idempotency (
    tenant text NOT NULL,
    key_id text NOT NULL,
    value text NOT NULL,
    body_hash bytea NOT NULL,
    request_id uuid NOT NULL,
    answer bytea,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, key_id, value)
);
CREATE INDEX idempotency_by_deadline ON idempotency (expires_at);
COMMENT ON COLUMN idempotency.answer IS 'encrypted; NULL while the first request is still being worked on';

CREATE TABLE audit_log (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT now(),
    actor text NOT NULL,
    action text NOT NULL,
    tenant text,
    subject text NOT NULL,
    details jsonb NOT NULL DEFAULT '{}'
);
CREATE INDEX audit_log_by_tenant ON audit_log (tenant, at);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is append-only: what is wrong is corrected by one more row', TG_TABLE_NAME
        USING ERRCODE = 'restrict_violation';
END $$;

-- Row triggers are inherited by partitions, those for TRUNCATE are not: `open_month` puts them there.
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON entries EXECUTE FUNCTION refuse_change();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE ON audit_log FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER never_emptied BEFORE TRUNCATE ON audit_log EXECUTE FUNCTION refuse_change();
