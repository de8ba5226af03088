"""What is made of the weights of attention of several layers and heads. Pure.

Shapes: N chosen heads, R rows (queries), C columns (keys).
"""

import enum
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float32]


class Reduction(enum.StrEnum):
    """How much is left of them."""

    NONE = "none"
    """All."""
    MEAN_HEADS = "mean_heads"
    """The mean over the heads of each layer."""
    MEAN = "mean"
    """The mean over layers and heads."""
    MAX = "max"
    """The largest over layers and heads."""
    ROLLOUT = "rollout"
    """What reaches each position through all layers; of self-attention."""


def reduce_weights(layers: Sequence[Weights], reduction: Reduction) -> Weights:
    """Reduces the weights [N, R, C] of each layer to [layers, heads, R, C], 1 where reduced."""
    match reduction:
        case Reduction.NONE:
            return np.stack(layers)
        case Reduction.MEAN_HEADS:
            return np.stack([layer.mean(axis=0, keepdims=True) for layer in layers])
        case Reduction.MEAN:
            total = np.add.reduce([layer.sum(axis=0) for layer in layers])
            mean: Weights = total / np.float32(sum(len(layer) for layer in layers))
            return mean[None, None]
        case Reduction.MAX:
            largest: Weights = np.maximum.reduce([layer.max(axis=0) for layer in layers])
            return largest[None, None]
        case Reduction.ROLLOUT:
            return _roll_out(layers)[None, None]


def _roll_out(layers: Sequence[Weights]) -> Weights:
    """Follows each token through the layers, each of which passes on half of what it gets.

    Source: Abnar and Zuidema 2020, arXiv:2005.00928, section 3, attention rollout.
    """
    identity = np.eye(layers[0].shape[-1], dtype=np.float32)
    reaching = identity
    for layer in layers:
        reaching = (layer.mean(axis=0) + identity) / 2 @ reaching  # [R, C]
    return reaching


def size_of(num_layers: int, num_heads: int, reduction: Reduction) -> int:
    """How many matrices [R, C] are left."""
    match reduction:
        case Reduction.NONE:
            return num_layers * num_heads
        case Reduction.MEAN_HEADS:
            return num_layers
    return 1
