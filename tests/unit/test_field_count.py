"""Fields counted from bytes: as many as a parser would make, and no more work than allowed."""

from hypothesis import given
from hypothesis import strategies as st

from seqserve.servicers.field_count import count_fields
from seqserve.v1 import encoding_pb2, generation_pb2

GENERATE = generation_pb2.GenerateRequest.DESCRIPTOR
MOST = 1000


@given(
    texts=st.lists(st.text(max_size=5), max_size=20),
    token_ids=st.lists(st.integers(0, 2**31 - 1), max_size=9),
    num_beams=st.integers(1, 9) | st.none(),
)
def test_all_fields_count(texts: list[str], token_ids: list[int], num_beams: int | None) -> None:
    """Those of the messages in it, too; numbers that are packed are one field."""
    request = generation_pb2.GenerateRequest(model_name="m")
    expected = 1
    for text in texts:
        request.inputs.add(text=text)
        expected += 2
    if token_ids:
        request.inputs.add().token_ids.values.extend(token_ids)
        expected += 3
    if num_beams is not None:
        request.options.num_beams = num_beams
        expected += 2
    assert count_fields(request.SerializeToString(), GENERATE, MOST) == expected


@given(data=st.binary(max_size=300))
def test_any_bytes_end(data: bytes) -> None:
    """Nothing is read beyond them."""
    assert 0 <= count_fields(data, GENERATE, MOST) <= len(data)


def test_counting_stops() -> None:
    """However many there are, at any depth."""
    assert count_fields(b"\x1a\x00" * 10_000, GENERATE, MOST) == MOST + 1
    texts = encoding_pb2.EmbedRequest(inputs=["a"] * 10_000)
    data = texts.SerializeToString()
    assert count_fields(data, encoding_pb2.EmbedRequest.DESCRIPTOR, MOST) == MOST + 1
