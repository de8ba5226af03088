"""Embeddings of texts: arguments to the request, its reply to the result."""

from collections.abc import Sequence as Items

import numpy as np

from seqserve.client.arguments import Priority, as_texts, to_priority
from seqserve.client.results import Embeddings
from seqserve.client.timing_messages import to_encoding_timing
from seqserve.v1 import encoding_pb2


def embed_request(
    texts: str | Items[str],
    model: str,
    version: str,
    normalize: bool | None,
    truncate: bool,
    priority: Priority = "",
) -> encoding_pb2.EmbedRequest:
    """A request for embeddings."""
    return encoding_pb2.EmbedRequest(
        model_name=model,
        model_version=version,
        inputs=as_texts(texts),
        normalize=normalize,
        truncate=truncate,
        priority=to_priority(priority),
    )


def to_embeddings(message: encoding_pb2.EmbedResponse) -> Embeddings:
    """The embeddings of one call."""
    items = message.embeddings
    return Embeddings(
        vectors=np.array([item.values for item in items], np.float32),
        token_counts=tuple(item.token_count for item in items),
        truncated_token_counts=tuple(item.truncated_token_count for item in items),
        timings=tuple(to_encoding_timing(item.timing) for item in items),
    )
