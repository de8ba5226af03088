"""From encoder states to a sparse embedding: a weight for each entry of the vocabulary.

The logits of a masked language model say, for every position, which entries it is about. Activated,
most of them are zero; pooled over the positions of a source, they are its embedding.

Shapes: B rows, S source length, M model width, V vocabulary entries.

Source: Formal et al. 2021, arXiv:2107.05720, eq. 1 (sum) and arXiv:2109.10086, eq. 6 (max);
``SpladePooling`` of ``sentence-transformers``.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from seqserve_export.heads import Head
from seqserve_export.pooling import SparsePooling, at_end

SparseActivation = Literal["relu", "log1p_relu"]
"""What makes weights of logits x: log(1 + relu(x)), or log(1 + log(1 + relu(x)))."""

SPARSE_ACTIVATIONS: tuple[SparseActivation, ...] = get_args(SparseActivation)


class SparseHead(nn.Module):
    """Takes the place of pooling: states of positions to one vector for the source."""

    def __init__(self, head: Head, pooling: SparsePooling, activation: SparseActivation) -> None:
        super().__init__()
        self.head = head
        self.mode: SparsePooling = pooling
        self.activation: SparseActivation = activation

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps states [B, S, M] with lengths [B] to embeddings [B, V].

        NOTE: a sum is a running sum read at the last valid position, as in
        :class:`~seqserve_export.pooling.Pooling`, and for the same reason.
        """
        if self.mode == "splade_sum":
            weights = self._activate(self.head.project(states))  # [B, S, V]
            return at_end(torch.cumsum(weights, dim=1), lengths)
        # Positions behind the end repeat the first, which leaves a maximum what it is: to mask
        # states is cheaper than to mask logits. And what grows with its argument can wait until
        # there is one number for each entry.
        positions = torch.arange(states.shape[1], device=states.device)
        is_padding = (positions >= lengths[:, None])[..., None]  # [B, S, 1]
        states = torch.where(is_padding, states[:, :1], states)
        return self._activate(self.head.project(states).amax(dim=1))  # [B, V]

    def _activate(self, logits: Tensor) -> Tensor:
        # NOTE: in float64. onnxruntime takes logarithms several numbers at a time, and what is left
        # over at the end of a tensor one by one and with other last bits; where that end falls
        # depends on the batch. Rounded to float32 they are the same.
        weights = torch.log1p(torch.relu(logits).double())
        if self.activation == "log1p_relu":
            weights = torch.log1p(weights)
        return weights.float()
