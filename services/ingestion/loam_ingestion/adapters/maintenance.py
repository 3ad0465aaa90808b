"""Keeping a table quick to search while it grows: its indices, and how its rows lie in files.

A search is right whatever is done here: rows that no index covers yet are compared one by one. But they are read from
S3 by each search, and as few as a hundred make one of 2 ms take 30. So the last commit before a worker rests indexes
what there is, as a delta beside the indices of before, while one that others follow may leave it to them. When deltas
have piled up, files are merged and the indices made anew, which costs what the table is. Every step makes new versions
of the table and takes nothing from the one before, so a worker may die at any of them.

Vectors are kept exactly while they fit into a reader's cache: one flat index, of which a search visits every partition.
Beyond that a search reads codes of three bits a dimension (RaBitQ, Gao et al., SIGMOD 2025, in Lance's multi-bit form)
and compares the best of them again by their vectors. Measured on 100,000 vectors of 512 dimensions, the 50 nearest are
then those of an exact search but for 0.1 %, at a fifth of the memory.
"""

from collections.abc import Mapping
from datetime import timedelta

import structlog
from lancedb.index import FTS, BTree, IvfFlat, IvfRq
from lancedb.table import AsyncTable

from loam_shared import index as layout

_log = structlog.get_logger()
NEVER = timedelta(days=36_500)
"""An age that no version reaches. Optimising prunes, and would by default take away what is a week old."""

# Reading so few vectors is no more than reading an index of them.
_UNINDEXED_ROWS = 64
# While more is waiting to be written, a share of the table may stay without an index: it will be indexed at one go.
_UNINDEXED_SHARE = 0.1
# Each costs a search about 0.4 ms.
_DELTAS = 24
_EXACT_BYTES = 128 << 20
_PARTITION_ROWS = 16_384
_CODE_BITS = 3
# Look-ups of texts that have vectors already, and of what to delete or to filter by.
_LOOKED_UP = ("content_hash", "document_id")


async def maintain(table: AsyncTable, rows: int, cleanup_older_than: timedelta = NEVER, *, busy: bool = False) -> None:
    """Index what needs it, in a table of so many rows, and delete versions older than `cleanup_older_than`.

    `busy` says that more is about to be written. Raises what LanceDB does.
    """
    names = {found.columns[0]: found.name for found in await table.list_indices()}
    if await _deltas(table, names) > _DELTAS:
        await _unindex(table, names, cleanup_older_than)
        names = {}
    elif cleanup_older_than < NEVER or await _unindexed(table, names) > _tolerated(rows, busy=busy):
        await table.optimize(cleanup_older_than=cleanup_older_than)
    await _index(table, rows, names)


async def _unindex(table: AsyncTable, names: Mapping[str, str], cleanup_older_than: timedelta) -> None:
    """Merge all files into one. The indices go before, because the files of two deltas never merge."""
    for name in names.values():
        await table.drop_index(name)
    await table.optimize(cleanup_older_than=cleanup_older_than)


async def _index(table: AsyncTable, rows: int, names: Mapping[str, str]) -> None:
    """Make the indices that are missing. Only a search by words needs its own from the first row on."""
    if rows and layout.TEXT not in names:
        await table.create_index(layout.TEXT, config=FTS(with_position=False))
    if rows < _UNINDEXED_ROWS:
        return
    if layout.VECTOR not in names:
        await _index_vectors(table, rows)
    for column in _LOOKED_UP:
        if column not in names:
            await table.create_index(column, config=BTree())


async def _index_vectors(table: AsyncTable, rows: int) -> None:
    vector = (await table.schema()).field(layout.VECTOR).type
    partitions = max(1, rows // _PARTITION_ROWS)
    exact = IvfFlat(distance_type="cosine", num_partitions=partitions)
    coded = IvfRq(distance_type="cosine", num_partitions=partitions, num_bits=_CODE_BITS)
    fits = rows * vector.list_size * vector.value_type.bit_width // 8 <= _EXACT_BYTES
    try:
        await table.create_index(layout.VECTOR, config=exact if fits else coded)
    except RuntimeError as error:
        # Where no vector has a direction there is nothing to index by, and nothing for a search to find.
        _log.warning("vectors not indexed, they are compared one by one", table=table.name, error=str(error))


def _tolerated(rows: int, *, busy: bool) -> int:
    return max(_UNINDEXED_ROWS, int(rows * _UNINDEXED_SHARE)) if busy else 0


async def _deltas(table: AsyncTable, names: Mapping[str, str]) -> int:
    stats = await table.index_stats(names[layout.VECTOR]) if layout.VECTOR in names else None
    return stats.num_indices or 0 if stats else 0


async def _unindexed(table: AsyncTable, names: Mapping[str, str]) -> int:
    stats = await table.index_stats(names[layout.TEXT]) if layout.TEXT in names else None
    return stats.num_unindexed_rows if stats else 0
