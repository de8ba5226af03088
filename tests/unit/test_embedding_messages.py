"""Embeddings, from arguments to the request and from its reply to the result."""

import numpy as np
import pytest
from google.protobuf import duration_pb2

from seqserve.client import Timing
from seqserve.client.embedding_messages import embed_request, to_embeddings
from seqserve.v1 import encoding_pb2


@pytest.mark.parametrize("normalize", [None, False, True])
def test_normalize_is_set_only_if_given(normalize: bool | None) -> None:
    """None leaves the choice to the model; False is a choice."""
    request = embed_request(["a", "b"], "m", "2", normalize, True)
    assert request.HasField("normalize") is (normalize is not None)
    assert request.normalize is bool(normalize)
    assert list(request.inputs) == ["a", "b"]
    assert (request.model_name, request.model_version, request.truncate) == ("m", "2", True)


def test_priorities_are_words() -> None:
    """Empty leaves it to the server; another word is refused with those there are."""
    for priority, value in {"": 0, "low": 1, "normal": 2, "high": 3}.items():
        request = embed_request(["a"], "", "", None, False, priority)  # type: ignore[arg-type]
        assert request.priority == value
    with pytest.raises(ValueError, match="one of low, normal, high, but is 'HIGH'"):
        embed_request(["a"], "", "", None, False, "HIGH")  # type: ignore[arg-type]


def test_embeddings_are_an_array_with_counts_and_times() -> None:
    """Rows in the order of the texts; embeddings have no decoding time."""
    timing = encoding_pb2.EncodingTiming(
        queue_duration=duration_pb2.Duration(nanos=1_000_000),
        encode_duration=duration_pb2.Duration(seconds=3),
        is_cached=True,
    )
    embeddings = to_embeddings(
        encoding_pb2.EmbedResponse(
            embeddings=[
                encoding_pb2.Embedding(values=[1, 2, 3], token_count=5, timing=timing),
                encoding_pb2.Embedding(values=[4, 5, 6], token_count=8, truncated_token_count=2),
            ]
        )
    )
    assert embeddings.vectors.dtype == np.float32
    assert embeddings.vectors.tolist() == [[1, 2, 3], [4, 5, 6]]
    assert embeddings.token_counts == (5, 8)
    assert embeddings.truncated_token_counts == (0, 2)
    assert embeddings.timings == (Timing(0.001, 3.0, 0.0, True), Timing(0.0, 0.0, 0.0))


def test_sparse_embeddings_are_arrays_of_their_own() -> None:
    """A vector for each text, even without weights; dense ones have none."""
    vector = encoding_pb2.SparseVector(indices=[1, 3], values=[0.5, 2.0], tokens=["a", "b"])
    window = encoding_pb2.EmbeddingWindow(sparse=vector)
    embeddings = to_embeddings(
        encoding_pb2.EmbedResponse(
            embeddings=[
                encoding_pb2.Embedding(sparse=vector, windows=[window]),
                encoding_pb2.Embedding(sparse=encoding_pb2.SparseVector()),
            ]
        )
    )
    first, second = embeddings.sparse
    assert first.to_dense(5).tolist() == [0.0, 0.5, 0.0, 2.0, 0.0]
    assert first.tokens == ("a", "b")
    assert second.to_dense(5).tolist() == [0.0] * 5
    assert embeddings.vectors.shape == (2, 0)
    ((part,), ()) = embeddings.windows
    assert part.sparse is not None
    assert part.sparse.indices.tolist() == [1, 3]
    dense = encoding_pb2.EmbedResponse(embeddings=[encoding_pb2.Embedding(values=[1.0])])
    assert to_embeddings(dense).sparse == ()
