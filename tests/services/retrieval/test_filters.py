"""A filter is a set of typed comparisons: whatever stands in its values, it never finds more than they say."""

import asyncio
from collections.abc import Iterator

import lancedb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loam_retrieval.filters import expression
from loam_shared.errors import InvalidRequestError
from loam_shared.index import FILTERABLE

SOURCES = [
    "handbook/leave.md",
    "handbook/badges.pdf",
    "handbook",
    "handbooks.md",
    "o'brien.txt",
    "a%b_c",
    "ünïcode/\U0010ffff",
]
ROWS = [
    {"document_id": f"doc_{n}", "source": source, "media_type": "text/plain", "page": n % 3 + 1 if n % 2 else None}
    for n, source in enumerate(SOURCES)
]
SCHEMA = pa.schema(
    [("document_id", pa.string()), ("source", pa.string()), ("media_type", pa.string()), ("page", pa.int32())]
)
HOSTILE = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        ["' OR 1=1 --", "x') OR (1=1", "%", "_", "*", "\\", "\\'", '" OR "1"="1', "handbook%", "NULL", "\0"]
    ),
    st.builds("{}{}".format, st.sampled_from(SOURCES), st.text(max_size=3)),
)


@pytest.fixture(scope="module")
def find(tmp_path_factory) -> Iterator:
    """The sources of the rows that a filter finds, in a real table."""
    with asyncio.Runner() as runner:

        async def made():
            database = await lancedb.connect_async(tmp_path_factory.mktemp("filters"))
            return await database.create_table("rows", pa.Table.from_pylist(ROWS, schema=SCHEMA))

        table = runner.run(made())

        async def found(wanted: dict) -> list[dict]:
            where = expression(wanted)
            query = table.query() if where is None else table.query().where(where)
            return await query.to_list()

        yield lambda wanted: runner.run(found(wanted))


def _is_meant(row: dict, wanted: dict) -> bool:
    """The same in Python, where there is nothing to inject into."""
    for name, value in wanted.items():
        values = value if isinstance(value, list) else [value]
        if name == "sourcePrefix":
            fits = any(row["source"].startswith(prefix) for prefix in values)
        elif name == "page":
            fits = row["page"] in [int(page) for page in values]
        else:
            fits = row[FILTERABLE[name]] in values
        if not fits:
            return False
    return True


@given(
    st.dictionaries(
        st.sampled_from([*FILTERABLE, "sourcePrefix"]),
        st.one_of(HOSTILE, st.lists(HOSTILE, min_size=1, max_size=4)),
        max_size=3,
    )
)
@settings(max_examples=150, deadline=None)
def test_no_value_ever_widens_what_is_found(find, wanted):
    try:
        found = find(wanted)
    except InvalidRequestError:
        return
    assert [row["document_id"] for row in found] == [row["document_id"] for row in ROWS if _is_meant(row, wanted)]


@pytest.mark.parametrize(
    ("wanted", "sources"),
    [
        ({"sourcePrefix": "handbook/"}, ["handbook/leave.md", "handbook/badges.pdf"]),
        ({"sourcePrefix": ["o'", "a%"]}, ["o'brien.txt", "a%b_c"]),
        ({"sourcePrefix": "ünïcode/\U0010ffff"}, ["ünïcode/\U0010ffff"]),
        ({"page": 2}, ["handbook/badges.pdf"]),
        ({"page": ["2", 1]}, ["handbook/badges.pdf", "handbooks.md"]),
        ({"documentId": ["doc_0", "doc_9"]}, ["handbook/leave.md"]),
        ({"name": "handbook", "mediaType": "text/plain"}, ["handbook"]),
        ({"name": "handbook", "mediaType": "text/html"}, []),
    ],
)
def test_every_field_finds_what_it_names(find, wanted, sources):
    assert [row["source"] for row in find(wanted)] == sources


@given(st.text(max_size=6))
@settings(max_examples=50, deadline=None)
def test_nothing_is_found_by_a_prefix_that_it_does_not_begin_with(find, prefix):
    assert all(row["source"].startswith(prefix) for row in (find({"sourcePrefix": prefix}) if prefix else []))


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ({"owner": "x"}, "filter by documentId, mediaType, name, page, source, sourcePrefix"),
        ({"name": []}, "1 to 200 values"),
        ({"name": ["x"] * 201}, "1 to 200 values"),
        ({"name": 7}, "give texts"),
        ({"sourcePrefix": ""}, "1 to 2048 characters"),
        ({"name": "x" * 2049}, "1 to 2048 characters"),
        ({"page": 0}, "numbers of pages"),
        ({"page": "2 OR 1=1"}, "numbers of pages"),
        ({"page": [1, "\u0663"]}, "numbers of pages"),
        ({"page": 2**31}, "numbers of pages"),
    ],
)
def test_a_filter_that_cannot_be_meant_is_refused_with_its_field(wanted, says):
    with pytest.raises(InvalidRequestError, match=says) as refused:
        expression(wanted)
    assert refused.value.param == f"filter.{next(iter(wanted))}"
