"""The graphs of a served model, as modules with flat tensors.

An encoder-decoder model has two:

* :class:`EncodeGraph` runs once per request: source tokens to the cross-attention keys and values
  of every decoder layer. The decoder never sees encoder states.
* :class:`DecodeGraph` runs once per step: one new token per live row, with the caches as inputs
  and, under other names, as outputs. The server binds both names to one buffer, so that the
  operator writes in place.

One in half precision has those of :mod:`seqserve_export.device_graphs`, too.

An encoder-only model has one:

* :class:`EmbedGraph` maps source tokens to one vector per source.

Tensor names follow Optimum (``past_key_values.{layer}.{decoder|encoder}.{key|value}``).
"""

import torch
from torch import Tensor, nn

from seqserve.session import cache_names
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.pooling import Pooling
from seqserve_export.sparse_head import SparseHead
from seqserve_export.transformer import Cache, Transformer


def _flatten(cache: Cache) -> list[Tensor]:
    return [tensor for pair in cache for tensor in pair]


def _pair(tensors: tuple[Tensor, ...]) -> Cache:
    return list(zip(tensors[::2], tensors[1::2], strict=True))


class EncodeGraph(nn.Module):
    """``input_ids, source_lengths -> last_hidden_state, present.{layer}.encoder.{key|value}``."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        return ["input_ids", "source_lengths"]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        num_layers = self.model.config.num_decoder_layers
        return ["last_hidden_state", *cache_names("present", "encoder", num_layers)]

    def forward(self, input_ids: Tensor, source_lengths: Tensor) -> tuple[Tensor, ...]:
        """Encodes input_ids [B, S]: states [B, S, M], and caches [B, H, S, D] for every layer."""
        states = self.model.encode(input_ids, source_lengths)
        return (states, *_flatten(self.model.decoder.project_source(states)))

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic.

        No dynamic dimension is 0 or 1 in the example: torch would make it a constant.
        """
        return _source_example()


class DecodeGraph(nn.Module):
    """One step: ``tokens, past_lengths, source_lengths, caches -> logits, caches``."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        caches = self._cache_names("past_key_values")
        return ["input_ids", "past_lengths", "source_lengths", *caches]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return ["logits", *self._cache_names("present")]

    def _cache_names(self, prefix: str) -> list[str]:
        num_layers = self.model.config.num_decoder_layers
        return [
            name
            for side in ("decoder", "encoder")
            for name in cache_names(prefix, side, num_layers)
        ]

    def forward(
        self, input_ids: Tensor, past_lengths: Tensor, source_lengths: Tensor, *caches: Tensor
    ) -> tuple[Tensor, ...]:
        """Decodes input_ids [B] at past_lengths [B]: logits [B, V] and the caches [B, H, P, D]."""
        half = len(caches) // 2
        logits, presents, sources = self.model.decode(
            input_ids, past_lengths, _pair(caches[half:]), source_lengths, _pair(caches[:half])
        )
        return (logits, *_flatten(presents), *_flatten(sources))

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        config = self.model.config
        batch = torch.export.Dim("batch_size")
        capacity = torch.export.Dim("target_capacity")
        source_capacity = torch.export.Dim("source_capacity")
        dtype = self.model.cache_dtype
        past = torch.zeros(3, config.num_heads, 8, config.head_size, dtype=dtype)
        source = torch.zeros(3, config.num_heads, 5, config.head_size, dtype=dtype)
        num_tensors = 2 * config.num_decoder_layers
        inputs = (
            torch.ones(3, dtype=torch.int64),
            torch.tensor([0, 3, 5], dtype=torch.int32),
            torch.tensor([5, 4, 2], dtype=torch.int32),
            *[past.clone() for _ in range(num_tensors)],
            *[source.clone() for _ in range(num_tensors)],
        )
        caches = (
            *[{0: batch, 2: capacity}] * num_tensors,
            *[{0: batch, 2: source_capacity}] * num_tensors,
        )
        return inputs, ({0: batch}, {0: batch}, {0: batch}, caches)


class EmbedGraph(nn.Module):
    """``input_ids, source_lengths -> sentence_embedding, last_hidden_state``."""

    def __init__(
        self,
        model: EncoderModel,
        pooling: Pooling | SparseHead,
        projection: nn.Sequential | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.projection = nn.Sequential() if projection is None else projection

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        return ["input_ids", "source_lengths"]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return ["sentence_embedding", "last_hidden_state"]

    def forward(self, input_ids: Tensor, source_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Embeds input_ids [B, S] with source_lengths [B]: embeddings [B, E], states [B, S, M].

        E is M, or what pooling and projection make of it; of sparse embeddings, the size of the
        vocabulary. The embeddings are not normalized: a request may ask for either.
        """
        states = self.model(input_ids, source_lengths)
        return self.projection(self.pooling(states, source_lengths)), states

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        return _source_example()


def _source_example() -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
    batch, length = torch.export.Dim("batch_size"), torch.export.Dim("source_length")
    input_ids = torch.ones(3, 5, dtype=torch.int64)
    source_lengths = torch.tensor([5, 4, 2], dtype=torch.int32)
    return (input_ids, source_lengths), ({0: batch, 1: length}, {0: batch})
