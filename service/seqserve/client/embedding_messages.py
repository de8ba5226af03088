"""Embeddings of texts: arguments to requests, replies to results."""

from collections.abc import Sequence as Items
from typing import TypedDict

import numpy as np
from google.rpc import code_pb2, status_pb2

from seqserve.client.arguments import (
    Priority,
    TruncationDirection,
    as_texts,
    as_texts_only,
    to_enum_name,
    to_priority,
)
from seqserve.client.errors import CallError, read_details
from seqserve.client.model_messages import to_token
from seqserve.client.results import Embeddings, EmbeddingWindow, SparseVector, TokenEmbeddings
from seqserve.client.timing_messages import to_encoding_timing
from seqserve.v1 import encoding_pb2


class EmbedOptions(TypedDict, total=False):
    """Further options of embedding. The API describes each field."""

    truncation_direction: TruncationDirection
    prompt_name: str
    dimensions: int
    stride: int
    return_windows: bool
    return_token_embeddings: bool
    max_active_dims: int
    return_tokens: bool


def embed_request(
    texts: str | Items[str],
    model: str,
    version: str,
    normalize: bool | None,
    truncate: bool,
    priority: Priority = "",
    options: EmbedOptions | None = None,
) -> encoding_pb2.EmbedRequest:
    """A request for embeddings."""
    message = encoding_pb2.EmbedRequest(
        model_name=model,
        model_version=version,
        inputs=as_texts(texts),
        normalize=normalize,
        truncate=truncate,
        priority=to_priority(priority),
    )
    # What is given is set, and nothing else.
    for name, value in (options or EmbedOptions()).items():
        if name == "truncation_direction":
            value = to_enum_name("TRUNCATION_DIRECTION", str(value), TruncationDirection, name)
        if value is not None:
            setattr(message, name, value)
    return message


def embed_stream_request(
    texts: Items[str], settings: encoding_pb2.EmbedRequest
) -> encoding_pb2.EmbedStreamRequest:
    """One request of a stream: texts, and settings that all of its requests have."""
    message = encoding_pb2.EmbedStreamRequest(request=settings)
    message.request.inputs.extend(as_texts_only(texts, "batches"))
    return message


def to_embeddings(message: encoding_pb2.EmbedResponse) -> Embeddings:
    """The embeddings of one call."""
    items = message.embeddings
    return Embeddings(
        vectors=np.array([item.values for item in items], np.float32),
        token_counts=tuple(item.token_count for item in items),
        truncated_token_counts=tuple(item.truncated_token_count for item in items),
        timings=tuple(to_encoding_timing(item.timing) for item in items),
        windows=tuple(tuple(map(_window, item.windows)) for item in items)
        if any(item.windows for item in items)
        else (),
        token_embeddings=tuple(map(_token_embeddings, items))
        if any(item.token_embeddings for item in items)
        else (),
        sparse=tuple(_sparse(item.sparse) for item in items if item.HasField("sparse")),
    )


def _window(message: encoding_pb2.EmbeddingWindow) -> EmbeddingWindow:
    return EmbeddingWindow(
        vector=np.array(message.values, np.float32),
        start_offset=message.start_offset,
        end_offset=message.end_offset,
        token_count=message.token_count,
        sparse=_sparse(message.sparse) if message.HasField("sparse") else None,
    )


def _sparse(message: encoding_pb2.SparseVector) -> SparseVector:
    return SparseVector(
        indices=np.array(message.indices, np.int32),
        values=np.array(message.values, np.float32),
        tokens=tuple(message.tokens),
    )


def _token_embeddings(message: encoding_pb2.Embedding) -> TokenEmbeddings:
    items = message.token_embeddings
    return TokenEmbeddings(
        tokens=tuple(to_token(item.token) for item in items),
        vectors=np.array([item.values for item in items], np.float32),
    )


def to_request_error(message: encoding_pb2.RequestError) -> CallError:
    """Why one request of a stream has no result."""
    status = status_pb2.Status(message=message.message, details=message.details)
    fields, retry_after_seconds, request_id = read_details(status)
    return CallError(
        code_pb2.Code.Name(message.code),
        message.message,
        fields=fields,
        retry_after_seconds=retry_after_seconds,
        request_id=request_id,
    )
