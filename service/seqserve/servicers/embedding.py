"""Embed: texts to passages, vectors to embeddings of the size and length that was asked for."""

import dataclasses
import itertools

import numpy as np
from numpy.typing import NDArray

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import add_windows, resolve_cutting
from seqserve.servicers.passages import (
    Text,
    admitted_windows,
    read_passages,
    read_windowed,
)
from seqserve.servicers.prompts import resolve_prompt
from seqserve.servicers.requests import admitted, check_count, check_text
from seqserve.servicers.token_embeddings import check_token_embeddings, to_token_embeddings
from seqserve.servicers.turn import Turn, predict, slowest, to_timing
from seqserve.task_record import EmbeddingRecord
from seqserve.v1 import encoding_pb2


@dataclasses.dataclass(frozen=True, slots=True)
class _Shape:
    """How vectors become embeddings."""

    is_normalized: bool
    dimensions: int


async def embed(
    model: ServedModel, request: encoding_pb2.EmbedRequest, config: ServerConfig, turn: Turn
) -> list[encoding_pb2.Embedding]:
    """Embeds all texts of a request.

    Raises:
        InvalidRequestError: Something in it is wrong.
        OverloadedError: Too much is outstanding.
    """
    record = model.manifest.embedding
    assert record is not None
    check_count(len(request.inputs), "inputs", config)
    prompt, shape = resolve_prompt(request, record), _resolve_shape(request, record)
    cutting = resolve_cutting(request)
    if request.HasField("stride"):
        cutting = add_windows(cutting, request.stride, model)
    _check_returns(request, record)
    with admitted(model, len(request.inputs)):
        texts = []
        for index, text in enumerate(request.inputs):
            check_text(text, f"inputs[{index}]", config)
            texts.append(Text(prompt + text, f"inputs[{index}]"))
        if cutting.stride is None:
            windows = [[one] for one in await read_passages(model, texts, cutting)]
        else:
            windows = await read_windowed(model, texts, cutting.stride, config)
        passages = list(itertools.chain(*windows))
        if request.return_token_embeddings:
            check_token_embeddings(passages, record, config)
        with admitted_windows(model, windows):
            answers = await predict(
                model, passages, turn, returns_states=request.return_token_embeddings
            )
    remaining = iter(answers)
    embeddings = []
    for parts in windows:
        vectors = list(itertools.islice(remaining, len(parts)))
        message = _to_embedding(parts, vectors, shape)
        if request.return_windows:
            message.windows.extend(_to_windows(parts, vectors, shape, len(prompt)))
        if request.return_token_embeddings:
            message.token_embeddings.extend(
                to_token_embeddings(model, parts[0], vectors[0], len(prompt))
            )
        embeddings.append(message)
    return embeddings


def _resolve_shape(request: encoding_pb2.EmbedRequest, record: EmbeddingRecord) -> _Shape:
    size = record.embedding_size
    dimensions = request.dimensions if request.HasField("dimensions") else size
    if not 1 <= dimensions <= size:
        raise InvalidRequestError(
            "dimensions",
            f"`dimensions` must be at least 1 and at most {size}, the model's embedding_size, but "
            f"is {dimensions}",
        )
    is_normalized = request.normalize if request.HasField("normalize") else record.normalize
    return _Shape(is_normalized, dimensions)


def _check_returns(request: encoding_pb2.EmbedRequest, record: EmbeddingRecord) -> None:
    """Refuses what would be returned of nothing."""
    if request.return_windows and not request.HasField("stride"):
        raise InvalidRequestError(
            "return_windows",
            "`return_windows` has an effect with `stride` only; set `stride`, or leave it out",
        )
    if not request.return_token_embeddings:
        return
    if request.HasField("stride"):
        raise InvalidRequestError(
            "return_token_embeddings",
            "`return_token_embeddings` cannot be combined with `stride`: a token in two windows "
            "has two states; leave one of them out",
        )
    if record.token_embedding_size is None:
        raise InvalidRequestError(
            "return_token_embeddings",
            "`return_token_embeddings` is not supported for this model, which was exported without "
            "the size of its token embeddings; export it again, or leave it out",
        )


def scale(
    values: NDArray[np.floating], *, is_normalized: bool, dimensions: int | None = None
) -> NDArray[np.float64]:
    """The first numbers of a vector [M], scaled to length 1 if they are to be."""
    kept = values[:dimensions].astype(np.float64)
    if is_normalized:
        # In float64, whose squares of float32 numbers neither overflow nor vanish. The same floor
        # as torch.nn.functional.normalize: a zero vector stays zero.
        kept /= max(float(np.linalg.norm(kept)), 1e-12)
    return kept


def _scale(vector: EncoderOutput, shape: _Shape) -> NDArray[np.float64]:
    return scale(vector.values, is_normalized=shape.is_normalized, dimensions=shape.dimensions)


def _to_embedding(
    parts: list[Passage], vectors: list[EncoderOutput], shape: _Shape
) -> encoding_pb2.Embedding:
    values = [_scale(vector, shape) for vector in vectors]
    lengths = [len(part.tokens) for part in parts]
    if len(values) > 1:
        mean = np.average(values, axis=0, weights=lengths)
        values = [scale(mean, is_normalized=shape.is_normalized)]
    return encoding_pb2.Embedding(
        values=values[0].tolist(),
        token_count=sum(lengths),
        truncated_token_count=sum(part.num_truncated for part in parts),
        timing=to_timing(slowest(vectors)),
    )


def _to_windows(
    parts: list[Passage], vectors: list[EncoderOutput], shape: _Shape, prompt_length: int
) -> list[encoding_pb2.EmbeddingWindow]:
    messages = []
    for part, vector in zip(parts, vectors, strict=True):
        places = [place for place in part.offsets if place is not None]
        messages.append(
            encoding_pb2.EmbeddingWindow(
                values=_scale(vector, shape).tolist(),
                start_offset=max(0, min((start for start, _ in places), default=0) - prompt_length),
                end_offset=max(0, max((end for _, end in places), default=0) - prompt_length),
                token_count=len(part.tokens),
            )
        )
    return messages
