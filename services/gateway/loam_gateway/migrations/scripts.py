"""Running the SQL files that migrations consist of."""

from pathlib import Path

from alembic import op

_FOLDER = Path(__file__).parent / "sql"


def run_script(name: str) -> None:
    """Run all statements of ``sql/{name}`` in the migration's transaction."""
    script = (_FOLDER / name).read_text()
    # Through the driver's own cursor: SQLAlchemy would look for parameters in it, and percent signs are none here.
    cursor = op.get_bind().connection.cursor()
    try:
        cursor.execute(script)
    finally:
        cursor.close()
