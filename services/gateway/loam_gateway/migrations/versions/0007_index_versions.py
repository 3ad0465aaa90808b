"""Index versions that are built beside the one that serves, and syncs whose changes show all at once.

Revision ID: 0007
Revises: 0006
"""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

# Readers are told of (table_version, chunks); writers go on from the head. A version is complete up to a number of the
# pipeline's `changes`; documents that were indexed under a later one are missing from it, or are there as they were.
TABLES = """
ALTER TABLE pipelines
    ADD COLUMN versions integer NOT NULL DEFAULT 0,
    ADD COLUMN changes bigint NOT NULL DEFAULT 0,
    ADD COLUMN sync_started_at timestamptz,
    ADD COLUMN declined_recipe jsonb;
COMMENT ON COLUMN pipelines.versions IS 'the highest number that an index version ever had; none is used twice';
COMMENT ON COLUMN pipelines.changes IS 'counts commits that changed documents';
COMMENT ON COLUMN pipelines.sync_started_at IS 'when the sources were compared, while what that found is being done';
COMMENT ON COLUMN pipelines.declined_recipe IS 'what the manifest asks for, while a rollback has gone away from it';

ALTER TABLE index_versions
    ADD COLUMN state text NOT NULL DEFAULT 'Ready' CHECK (state IN ('Building', 'Ready', 'Rejected')),
    ADD COLUMN recipe jsonb,
    ADD COLUMN head_table_version bigint,
    ADD COLUMN head_chunks bigint NOT NULL DEFAULT 0,
    ADD COLUMN complete_to bigint,
    ADD COLUMN served_at timestamptz,
    ADD COLUMN reason text,
    ADD COLUMN chosen boolean NOT NULL DEFAULT false,
    ALTER COLUMN table_version DROP NOT NULL,
    ALTER COLUMN chunks SET DEFAULT 0;
COMMENT ON COLUMN index_versions.chosen IS 'a user asked for this very version, so it need not be as good as the other';
UPDATE index_versions SET head_table_version = table_version, head_chunks = chunks, served_at = updated_at;
UPDATE index_versions v SET
    state = CASE WHEN p.index_version = v.version THEN 'Ready' ELSE 'Rejected' END,
    reason = CASE WHEN p.index_version = v.version THEN NULL ELSE 'made by an earlier release' END,
    recipe = jsonb_build_object(
        'chunking', coalesce(p.spec -> 'chunking', '{"strategy": "Recursive", "maxTokens": 400, "overlapTokens": 40}'),
        'embedding', p.spec -> 'embedding')
FROM pipelines p WHERE (p.tenant, p.name) = (v.tenant, v.pipeline);
UPDATE pipelines p SET versions = coalesce(
    (SELECT max(version) FROM index_versions v WHERE (v.tenant, v.pipeline) = (p.tenant, p.name)), 0);
ALTER TABLE index_versions ALTER COLUMN recipe SET NOT NULL;
CREATE UNIQUE INDEX index_versions_one_building ON index_versions (tenant, pipeline) WHERE state = 'Building';

CREATE TABLE index_publications (
    tenant text NOT NULL,
    pipeline text NOT NULL,
    version integer NOT NULL,
    table_version bigint NOT NULL,
    published_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, pipeline, version, table_version),
    FOREIGN KEY (tenant, pipeline, version) REFERENCES index_versions ON DELETE CASCADE
);
COMMENT ON TABLE index_publications IS 'what readers were told of, as long as one may still be at it';
INSERT INTO index_publications (tenant, pipeline, version, table_version)
SELECT tenant, pipeline, version, table_version FROM index_versions;

CREATE TABLE retired_tables (
    tenant text NOT NULL,
    pipeline text NOT NULL,
    table_name text NOT NULL,
    retired_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant, pipeline, table_name),
    FOREIGN KEY (tenant, pipeline) REFERENCES pipelines ON DELETE CASCADE
);
COMMENT ON TABLE retired_tables IS 'tables of index versions that are gone, deleted once nobody can be reading them';

ALTER TABLE documents
    ADD COLUMN version integer NOT NULL DEFAULT 1,
    ADD COLUMN staged boolean NOT NULL DEFAULT false,
    ADD COLUMN retryable boolean NOT NULL DEFAULT false,
    ADD COLUMN indexed_change bigint,
    ADD COLUMN built_version integer,
    ADD COLUMN parse_seconds double precision,
    ADD COLUMN embed_seconds double precision,
    ADD COLUMN indexed_at timestamptz;
COMMENT ON COLUMN documents.staged IS 'written to the head, and not published yet';
COMMENT ON COLUMN documents.indexed_change IS 'the change that brought it into the index; NULL while it is not there';
COMMENT ON COLUMN documents.built_version IS 'the version being built that holds it already';
CREATE INDEX documents_staged ON documents (tenant, pipeline) WHERE staged;
UPDATE documents SET indexed_change = 0, indexed_at = updated_at WHERE status <> 'Failed' AND chunks IS NOT NULL;

ALTER TABLE jobs
    ADD COLUMN held boolean NOT NULL DEFAULT false,
    DROP CONSTRAINT jobs_kind_check,
    DROP CONSTRAINT jobs_check,
    ADD CHECK (kind IN ('Ingest', 'Remove', 'Build', 'Sync', 'Check')),
    ADD CHECK ((kind IN ('Sync', 'Check')) = (document_id IS NULL));
COMMENT ON COLUMN jobs.held IS 'found by the sync that is under way: readers see what such jobs change all at once';
CREATE UNIQUE INDEX jobs_one_check ON jobs (tenant, pipeline) WHERE kind = 'Check';
"""


def upgrade() -> None:
    """Extend the tables; what serves goes on serving."""
    op.execute(TABLES)


def downgrade() -> None:
    """There is no way back: tables of several versions lie in the storage, of which the former schema knows one."""
    raise NotImplementedError("restore a backup to go back before this")
