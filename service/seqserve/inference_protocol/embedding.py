"""Embedding: texts to vectors, with the states of their tokens if they are asked for."""

from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from seqserve.inference_protocol.dense_vector import to_dense
from seqserve.inference_protocol.parameter import set_fields
from seqserve.inference_protocol.signature import Call, Input, Output, Signature, Tensors, stack
from seqserve.inference_protocol.token_prediction import token_signature
from seqserve.served_model import ServedModel
from seqserve.task_record import EmbeddingRecord
from seqserve.v1 import encoding_pb2

_STATES = "last_hidden_state"
_WINDOWS = "window_embedding"
_WINDOW_FIELDS = ("start_offset", "end_offset", "token_count")
_PARAMETERS = (
    *("dimensions", "max_active_dims", "normalize", "prompt_name", "stride", "truncate"),
    "truncation_direction",
)


def embedding_signatures(model: ServedModel) -> list[Signature]:
    """With texts or with token ids."""
    record = model.manifest.embedding
    assert record is not None
    size = record.embedding_size
    outputs = [
        Output("embedding", "FP32", (-1, size)),
        Output("token_count", "INT32", (-1,)),
        Output("truncated_token_count", "INT32", (-1,)),
        _of_windows(_WINDOWS, "FP32", (-1, -1, size)),
        *(_of_windows(f"window_{name}", "INT32", (-1, -1)) for name in _WINDOW_FIELDS),
        _of_windows("window_count", "INT32", (-1,)),
    ]
    if record.token_embedding_size is not None:
        shape = (-1, -1, record.token_embedding_size)
        states = Output(_STATES, "FP32", shape, is_default=False, flag="return_token_embeddings")
        outputs.append(states)
    text = Input("text", "BYTES", (-1,), is_required=True)
    return [Signature((text,), tuple(outputs), _PARAMETERS, embed), token_signature(model)]


async def embed(call: Call) -> Tensors:
    """Embeds all texts of a request."""
    manifest = call.model.manifest
    request = encoding_pb2.EmbedRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        inputs=call.texts("text"),
        priority=call.priority,
        return_token_embeddings=_STATES in call.asked,
        return_windows=any(name.startswith("window_") for name in call.asked),
    )
    set_fields(request, call.parameters)
    response = await call.services.encoding.Embed(request, call.context)
    embeddings = response.embeddings
    record = manifest.embedding
    assert record is not None
    vectors = [_values(one, record) for one in embeddings]
    tensors = {"embedding": stack(vectors, 2, np.float32)}
    for name in ("token_count", "truncated_token_count"):
        tensors[name] = stack([getattr(one, name) for one in embeddings], 1, np.int32)
    if request.return_token_embeddings:
        states = [[token.values for token in one.token_embeddings] for one in embeddings]
        tensors[_STATES] = stack(states, 3, np.float32)
    if request.return_windows:
        tensors |= _to_windows([one.windows for one in embeddings], record)
    return tensors


def _values(
    message: encoding_pb2.Embedding | encoding_pb2.EmbeddingWindow, record: EmbeddingRecord
) -> NDArray[np.float32]:
    if record.sparse is None:
        return to_dense(message.values, None, record.embedding_size)
    return to_dense(message.sparse.values, message.sparse.indices, record.embedding_size)


def _of_windows(name: str, datatype: str, shape: tuple[int, ...]) -> Output:
    return Output(name, datatype, shape, is_default=False, flag="return_windows")


def _to_windows(
    rows: Items[Items[encoding_pb2.EmbeddingWindow]], record: EmbeddingRecord
) -> Tensors:
    """The windows of each text; ``window_count`` tells how many of a row are some."""
    tensors = {
        _WINDOWS: stack([[_values(one, record) for one in row] for row in rows], 3, np.float32),
        "window_count": stack([len(row) for row in rows], 1, np.int32),
    }
    for name in _WINDOW_FIELDS:
        values = [[getattr(one, name) for one in row] for row in rows]
        tensors[f"window_{name}"] = stack(values, 2, np.int32)
    return tensors
