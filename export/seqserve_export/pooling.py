"""From the states of a source's positions to one vector for the source.

Shapes: B rows, S source length, M model width.

Source: Reimers and Gurevych 2019, arXiv:1908.10084, section 3; ``Pooling`` and ``Normalize`` of
``sentence-transformers``.
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

PoolingMode = Literal["mean", "cls"]


class Pooling(nn.Module):
    """Takes the mean of the valid positions, or the state of the first one."""

    def __init__(self, mode: PoolingMode) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps states [B, S, M] with lengths [B] to embeddings [B, M].

        NOTE: the mean is the running sum at the last valid position, not a sum over masked states.
        onnxruntime's sum groups its terms by S, so that the padding of the batch would change the
        last bits of a row; a running sum adds in order and never reaches the padding.
        """
        if self.mode == "cls":
            return states[:, 0]
        last = (lengths.long() - 1)[:, None, None].expand(-1, 1, states.shape[2])  # [B, 1, M]
        total = torch.cumsum(states, dim=1).gather(1, last)[:, 0]
        return total / lengths[:, None].to(states.dtype)


def normalize(embeddings: Tensor) -> Tensor:
    """Scales embeddings [B, M] to length 1; a zero vector stays zero."""
    return functional.normalize(embeddings, dim=1)
