"""The database's schema: one numbered file per change, run by `upgrade`."""

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config

# Any number will do, as long as every release agrees on it.
_LOCK = 0x10A3


def upgrade(database_url: str, revision: str = "head") -> None:
    """Bring the database at `database_url` (``postgresql://…``) up to date.

    Of several that start at once, one migrates while the others wait and then find nothing to do. Everything happens
    in one transaction, so a migration that fails, or is killed, leaves nothing behind.
    """
    url = sqlalchemy.make_url(database_url).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        command.upgrade(_config(connection), revision)


def _config(connection: sqlalchemy.Connection) -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.attributes["connection"] = connection
    return config
