"""Looks inside the attention: the weights that each call of it gives to its keys.

The fused operator does not tell its weights. While they are recorded, attention is written out as
in the textbook, and so it is in a graph that is traced meanwhile.

Shapes: B rows, H heads, T queries, P keys, D head size.
"""

import contextlib
import math
from collections.abc import Iterator
from contextvars import ContextVar

import torch
from torch import Tensor

_record: ContextVar[list[Tensor] | None] = ContextVar("attention_record", default=None)


@contextlib.contextmanager
def recording_attention() -> Iterator[list[Tensor]]:
    """Yields what will hold the weights [B, H, T, P] of each call of attention, in their order."""
    record: list[Tensor] = []
    token = _record.set(record)
    try:
        yield record
    finally:
        _record.reset(token)


def current_record() -> list[Tensor] | None:
    """Where weights are recorded; None if nobody asks for them."""
    return _record.get()


def attention_weights(
    queries: Tensor, keys: Tensor, mask: Tensor, scale: float | None, bias: Tensor | None
) -> Tensor:
    """What each query gives to each key, [B, H, T, P], in fp32; it sums to 1.

    Args:
        queries: [B, H, T, D].
        keys: [B, H, P, D].
        mask: Which keys each query may see, at least one, [B, 1, T or 1, P], bool.
        scale: Factor on the scores; None means ``1 / sqrt(D)``.
        bias: Added to the scores, [B or 1, H or 1, T, P].

    Source: Vaswani et al. 2017, arXiv:1706.03762, eq. 1.
    """
    factor = 1 / math.sqrt(queries.shape[-1]) if scale is None else scale
    scores = ((queries * factor) @ keys.transpose(2, 3)).float()  # [B, H, T, P]
    if bias is not None:
        scores = scores + bias
    return torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
