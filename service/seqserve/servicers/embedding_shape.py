"""What shape embeddings have that a request asks for: dense or sparse, of which size and length."""

import dataclasses
from collections.abc import Sequence as Items
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from seqserve.errors import InvalidRequestError
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.sparse_vector import SparseVector
from seqserve.task_record import EmbeddingRecord, SparseRecord
from seqserve.tokenizer import Tokenizer
from seqserve.v1 import encoding_pb2

Message = encoding_pb2.Embedding | encoding_pb2.EmbeddingWindow


class EmbeddingShape(Protocol):
    """Makes embeddings of what a model returns."""

    def fill(self, message: Message, outputs: Items[EncoderOutput], lengths: Items[int]) -> None:
        """Writes the embedding of a text into its message.

        Args:
            message: Gets the vector.
            outputs: One, or those of the windows of the text.
            lengths: Tokens of each.
        """


@dataclasses.dataclass(frozen=True, slots=True)
class DenseShape:
    """The first numbers of a vector, perhaps scaled to length 1; the mean of windows."""

    is_normalized: bool
    dimensions: int

    def fill(self, message: Message, outputs: Items[EncoderOutput], lengths: Items[int]) -> None:
        """Writes ``values``; windows count by their tokens."""
        values = [
            scale(output.values, is_normalized=self.is_normalized, dimensions=self.dimensions)
            for output in outputs
        ]
        if len(values) > 1:
            mean = np.average(values, axis=0, weights=lengths)
            values = [scale(mean, is_normalized=self.is_normalized)]
        message.values.extend(values[0].tolist())


@dataclasses.dataclass(frozen=True, slots=True)
class SparseShape:
    """The largest weights, perhaps scaled to length 1; of windows the largest that any has."""

    is_normalized: bool
    max_active_dims: int | None
    """None for all above zero."""
    tokenizer: Tokenizer | None
    """Names the entries of the vocabulary; None if they come without names."""

    def fill(self, message: Message, outputs: Items[EncoderOutput], lengths: Items[int]) -> None:
        """Writes ``sparse``, which is set even if no weight is above zero."""
        vectors = []
        for output in outputs:
            assert output.indices is not None
            vectors.append(SparseVector(output.indices, output.values))
        vector = vectors[0] if len(vectors) == 1 else SparseVector.merge(vectors)
        if self.max_active_dims is not None:
            vector = vector.keep_largest(self.max_active_dims)
        indices: list[int] = vector.indices.tolist()
        tokens = [] if self.tokenizer is None else [self.tokenizer.entry(one) for one in indices]
        values = scale(vector.values, is_normalized=self.is_normalized)
        message.sparse.CopyFrom(
            encoding_pb2.SparseVector(indices=indices, values=values.tolist(), tokens=tokens)
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


def resolve_shape(request: encoding_pb2.EmbedRequest, model: ServedModel) -> EmbeddingShape:
    """Reads what is asked for, or else what the model was trained for.

    Raises:
        InvalidRequestError: It is out of range, or not for the embeddings of this model.
    """
    record = model.manifest.embedding
    assert record is not None
    is_normalized = request.normalize if request.HasField("normalize") else record.normalize
    if record.sparse is None:
        _refuse_sparse_options(request)
        return DenseShape(is_normalized, _resolve_dimensions(request, record))
    if request.HasField("dimensions"):
        raise InvalidRequestError(
            "dimensions",
            "`dimensions` is not supported for this model, whose embeddings are sparse; set "
            "`max_active_dims` for fewer weights",
        )
    if request.HasField("stride") and record.pooling == "splade_sum":
        raise InvalidRequestError(
            "stride",
            "`stride` is not supported for this model, which adds the weights of tokens up "
            "(splade_sum): those of tokens in two windows would count twice; send shorter texts, "
            "or set `truncate`",
        )
    return SparseShape(
        is_normalized,
        _resolve_max_active_dims(request, record, record.sparse),
        model.source_tokenizer if request.return_tokens else None,
    )


def _resolve_dimensions(request: encoding_pb2.EmbedRequest, record: EmbeddingRecord) -> int:
    size = record.embedding_size
    dimensions = request.dimensions if request.HasField("dimensions") else size
    if not 1 <= dimensions <= size:
        raise InvalidRequestError(
            "dimensions",
            f"`dimensions` must be at least 1 and at most {size}, the model's embedding_size, but "
            f"is {dimensions}",
        )
    return dimensions


def _resolve_max_active_dims(
    request: encoding_pb2.EmbedRequest, record: EmbeddingRecord, sparse: SparseRecord
) -> int | None:
    if not request.HasField("max_active_dims"):
        return sparse.max_active_dims
    size, count = record.embedding_size, request.max_active_dims
    if not 1 <= count <= size:
        raise InvalidRequestError(
            "max_active_dims",
            f"`max_active_dims` must be at least 1 and at most {size}, the model's embedding_size, "
            f"but is {count}",
        )
    return count


def _refuse_sparse_options(request: encoding_pb2.EmbedRequest) -> None:
    for field, is_set in (
        ("max_active_dims", request.HasField("max_active_dims")),
        ("return_tokens", request.return_tokens),
    ):
        if is_set:
            raise InvalidRequestError(
                field,
                f"`{field}` has an effect on sparse embeddings only, but those of this model are "
                "dense; leave it out",
            )
