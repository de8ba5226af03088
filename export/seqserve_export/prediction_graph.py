"""The graph of an encoder with a head: source tokens to logits.

Shapes: B rows, S source length, M model width, V labels or vocabulary entries, N masks of the
batch.
"""

import torch
from torch import Tensor, nn

from seqserve_export.encoder_model import EncoderModel
from seqserve_export.heads import Head


class PredictGraph(nn.Module):
    """``input_ids, source_lengths[, token_type_ids] -> logits``.

    The logits are [B, V] of a head with pooling, else [B, S, V]. With a mask token they are those
    of its places only, [N, V], row after row: a vocabulary is wide, and nobody asks for the rest.
    """

    def __init__(
        self,
        model: EncoderModel,
        head: Head,
        *,
        has_token_types: bool = False,
        mask_token: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.head = head
        self.has_token_types = has_token_types
        self.mask_token = mask_token

    def input_names(self) -> list[str]:
        """Names in the order of ``forward``."""
        names = ["input_ids", "source_lengths"]
        return [*names, "token_type_ids"] if self.has_token_types else names

    def output_names(self) -> list[str]:
        """Names in the order of the returned tuple."""
        return ["logits"]

    def forward(
        self, input_ids: Tensor, source_lengths: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Predicts from input_ids [B, S] with source_lengths [B] and token_type_ids [B, S]."""
        states = self.model(input_ids, source_lengths, token_type_ids)
        if self.mask_token is None:
            logits: Tensor = self.head(states, source_lengths)
            return logits
        positions = torch.arange(input_ids.shape[1], device=input_ids.device)
        is_mask = (input_ids == self.mask_token) & (positions < source_lengths[:, None])
        return self.head.project(states[is_mask])  # [N, M] -> [N, V]

    def example(self) -> tuple[tuple[Tensor, ...], tuple[object, ...]]:
        """Inputs to trace with, and which of their dimensions are dynamic."""
        batch, length = torch.export.Dim("batch_size"), torch.export.Dim("source_length")
        input_ids = torch.ones(3, 5, dtype=torch.int64)
        if self.mask_token is not None:
            input_ids[:, 1] = self.mask_token
        inputs = (input_ids, torch.tensor([5, 4, 2], dtype=torch.int32))
        shapes: tuple[object, ...] = ({0: batch, 1: length}, {0: batch})
        if not self.has_token_types:
            return inputs, shapes
        return (*inputs, torch.zeros(3, 5, dtype=torch.int64)), (*shapes, {0: batch, 1: length})
