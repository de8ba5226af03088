"""Graphs that tell what attends to what, for whole sources and targets at once.

Nothing is served from them but that. Each layer has an input that chooses among its heads, so that
no more is kept in memory than somebody has asked for.

Shapes: B rows, S source length, T target length, H heads, N chosen heads, L layers.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from seqserve.attention_kind import AttentionKind, head_names, weight_names
from seqserve_export.attention_recording import recording_attention
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.transformer import KindLayers, Transformer

_NUM_EXAMPLE_HEADS = 3
"""Of each layer, when a graph is traced; torch would make constants of 0 and 1."""


def choose_heads(weights: Sequence[Tensor], heads: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Takes of the weights [B, H, T, P] of each layer those of its chosen heads [N]."""
    return tuple(
        layer.index_select(1, chosen) for layer, chosen in zip(weights, heads, strict=True)
    )


class ExplainGraph(nn.Module):
    """Encoder-decoder: ``input_ids, source_lengths, decoder_input_ids, heads -> weights``."""

    def __init__(self, model: Transformer) -> None:
        super().__init__()
        self.model = model
        self.layers: KindLayers = model.attention_layers

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        return ["input_ids", "source_lengths", "decoder_input_ids", *_names(head_names, self)]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return _names(weight_names, self)

    def forward(
        self, input_ids: Tensor, source_lengths: Tensor, decoder_input_ids: Tensor, *heads: Tensor
    ) -> tuple[Tensor, ...]:
        """Explains input_ids [B, S] and decoder_input_ids [B, T]: weights of the chosen heads.

        They are [B, N, S, S] of the encoder, [B, N, T, T] and [B, N, T, S] of the decoder. Row t of
        the decoder's is the step that reads the token t, and writes the one behind it.
        """
        target_lengths = torch.full_like(source_lengths, decoder_input_ids.shape[1])
        with recording_attention() as record:
            self.model(input_ids, source_lengths, decoder_input_ids, target_lengths)
        return choose_heads(self.model.sort_attention(record, input_ids.shape[1]), heads)

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        batch = torch.export.Dim("batch_size")
        inputs = (
            torch.ones(3, 5, dtype=torch.int64),
            torch.tensor([5, 4, 2], dtype=torch.int32),
            torch.ones(3, 7, dtype=torch.int64),
        )
        shapes = (
            {0: batch, 1: torch.export.Dim("source_length")},
            {0: batch},
            {0: batch, 1: torch.export.Dim("target_length")},
        )
        heads, head_shapes = _head_example(self)
        return (*inputs, *heads), (*shapes, head_shapes)


class EncoderExplainGraph(nn.Module):
    """Encoder-only: ``input_ids, source_lengths[, token_type_ids], heads -> weights``."""

    def __init__(self, model: EncoderModel, *, has_token_types: bool) -> None:
        super().__init__()
        self.model = model
        self.has_token_types = has_token_types
        self.layers: KindLayers = {
            AttentionKind.ENCODER_SELF: len(model.encoder.order),
        }

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        names = ["input_ids", "source_lengths"]
        if self.has_token_types:
            names.append("token_type_ids")
        return [*names, *_names(head_names, self)]

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return _names(weight_names, self)

    def forward(
        self, input_ids: Tensor, source_lengths: Tensor, *others: Tensor
    ) -> tuple[Tensor, ...]:
        """Explains input_ids [B, S]: weights [B, N, S, S] of the chosen heads of each layer.

        Args:
            input_ids: [B, S].
            source_lengths: [B].
            others: Types of tokens [B, S], where they are told, then the heads [N] of each layer.
        """
        token_types, heads = (others[0], others[1:]) if self.has_token_types else (None, others)
        with recording_attention() as record:
            self.model(input_ids, source_lengths, token_types)
        return choose_heads(record, heads)

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        batch, length = torch.export.Dim("batch_size"), torch.export.Dim("source_length")
        input_ids = torch.ones(3, 5, dtype=torch.int64)
        source_lengths = torch.tensor([5, 4, 2], dtype=torch.int32)
        heads, head_shapes = _head_example(self)
        shapes = ({0: batch, 1: length}, {0: batch})
        if not self.has_token_types:
            return (input_ids, source_lengths, *heads), (*shapes, head_shapes)
        types = torch.zeros(3, 5, dtype=torch.int64)
        return (input_ids, source_lengths, types, *heads), (
            *shapes,
            ({0: batch, 1: length}, *head_shapes),
        )


Explainable = ExplainGraph | EncoderExplainGraph


def _names(name: Callable[[AttentionKind, int], list[str]], graph: Explainable) -> list[str]:
    return [one for kind, num_layers in graph.layers.items() for one in name(kind, num_layers)]


def _head_example(graph: Explainable) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
    """Chosen heads of all layers, each a number of its own."""
    names = _names(head_names, graph)
    heads = tuple(torch.zeros(_NUM_EXAMPLE_HEADS, dtype=torch.int64) for _ in names)
    dims = [torch.export.Dim(name.replace(".", "_") + "_count") for name in names]
    return heads, tuple({0: dim} for dim in dims)
