"""From the states of a source's positions to one vector for the source.

Shapes: B rows, S source length, M model width.

Source: Reimers and Gurevych 2019, arXiv:1908.10084, section 3; ``Pooling`` and ``Normalize`` of
``sentence-transformers``.
"""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

PoolingMode = Literal["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]

POOLING_MODES: tuple[PoolingMode, ...] = get_args(PoolingMode)

SparsePooling = Literal["splade_max", "splade_sum"]
"""How weights of positions become a sparse embedding, see :mod:`seqserve_export.sparse_head`."""

SPARSE_POOLINGS: tuple[SparsePooling, ...] = get_args(SparsePooling)

PoolingChoice = PoolingMode | SparsePooling
"""What a folder that says nothing of it can be exported with."""


class Pooling(nn.Module):
    """Makes one vector of the valid positions of a source; of several modes, one after another.

    ======================== ==============================================================
    mode                     vector
    ======================== ==============================================================
    ``mean``                 the mean of the states
    ``mean_sqrt_len_tokens`` their sum, divided by the square root of their number
    ``weightedmean``         their mean, where the state at position i (from 1) counts i times
    ``max``                  the largest value of each dimension
    ``cls``                  the first state
    ``lasttoken``            the last state
    ======================== ==============================================================
    """

    def __init__(self, *modes: PoolingMode) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps states [B, S, M] with lengths [B] to embeddings [B, number of modes * M].

        NOTE: a mean is the running sum at the last valid position, not a sum over masked states.
        onnxruntime's sum groups its terms by S, so that the padding of the batch would change the
        last bits of a row; a running sum adds in order and never reaches the padding.
        """
        pooled = [_pool(mode, states, lengths) for mode in self.modes]
        return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)


def _pool(mode: PoolingMode, states: Tensor, lengths: Tensor) -> Tensor:
    counts = lengths[:, None].to(states.dtype)  # [B, 1]
    match mode:
        case "cls":
            return states[:, 0]
        case "lasttoken":
            return at_end(states, lengths)
        case "max":
            positions = torch.arange(states.shape[1], device=states.device)
            is_padding = (positions >= lengths[:, None])[..., None]  # [B, S, 1]
            return states.masked_fill(is_padding, -torch.inf).amax(dim=1)
        case "weightedmean":
            weights = torch.arange(1, states.shape[1] + 1, device=states.device).to(states.dtype)
            total = at_end(torch.cumsum(states * weights[:, None], dim=1), lengths)
            return total / (counts * (counts + 1) / 2)
        case "mean_sqrt_len_tokens":
            return at_end(torch.cumsum(states, dim=1), lengths) / counts.sqrt()
        case "mean":
            return at_end(torch.cumsum(states, dim=1), lengths) / counts


def at_end(states: Tensor, lengths: Tensor) -> Tensor:
    """The state at the last valid position of each row: [B, S, M] -> [B, M]."""
    last = (lengths.long() - 1)[:, None, None].expand(-1, 1, states.shape[2])  # [B, 1, M]
    return states.gather(1, last)[:, 0]


def normalize(embeddings: Tensor) -> Tensor:
    """Scales embeddings [B, M] to length 1; a zero vector stays zero."""
    return functional.normalize(embeddings, dim=1)
