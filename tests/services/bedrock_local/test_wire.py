"""The binary event stream and the token counter, as laws that hold for any input."""

from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from loam_bedrock_local import eventstream, tokens

KINDS = st.text(st.characters(codec="ascii", categories=["L"]), min_size=1, max_size=40)


@given(st.lists(st.tuples(KINDS, st.binary(max_size=300), st.booleans()), max_size=8), st.integers(1, 64))
def test_botocore_reads_back_every_event_however_the_bytes_arrive(sent, size):
    raw = b"".join((eventstream.exception if bad else eventstream.event)(kind, payload) for kind, payload, bad in sent)
    buffer, read = EventStreamBuffer(), []
    for start in range(0, len(raw), size):
        buffer.add_data(raw[start : start + size])
        read.extend(
            (message.headers[f":{message.headers[':message-type']}-type"], message.payload)
            if message.headers[":message-type"] == "exception"
            else (message.headers[":event-type"], message.payload)
            for message in buffer
        )
    assert read == [(kind, payload) for kind, payload, _ in sent]


@given(st.text(max_size=400))
def test_a_text_never_has_more_tokens_than_bytes_and_never_none(text):
    assert tokens.count(text) <= len(text.encode(errors="surrogatepass"))
    assert bool(tokens.count(text)) == bool(text)


@given(st.text(max_size=400), st.integers(1, 50))
def test_a_truncated_text_is_a_beginning_within_the_limit(text, limit):
    cut = tokens.truncate(text, limit)
    assert text.startswith(cut)
    assert tokens.count(cut) <= limit
    assert cut == text or tokens.count(text) > limit


@given(st.text(max_size=400), st.integers(1, 8))
def test_pieces_join_to_the_text_and_their_tokens_to_its_tokens(text, size):
    cut = tokens.pieces(text, size)
    assert "".join(cut) == text
    assert sum(map(tokens.count, cut)) == tokens.count(text)
    assert all(tokens.count(piece) <= 4 * size for piece in cut)
