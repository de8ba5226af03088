"""What stands on an encoder: the heads that classify texts or tokens, or fill masks.

All of them are one small network, with parts left out: pooling, a hidden layer with an activation
and a norm, and the output layer.

=========================  =======  ==================  =========================
head                       pooling  hidden layer        output
=========================  =======  ==================  =========================
classification, reranking  yes      in nearly all       a logit per label
token classification       no       in ModernBERT       a logit per label
fill mask                  no       yes, with norm      a logit per vocabulary entry
=========================  =======  ==================  =========================

Shapes: B rows, S source length, M model width, V outputs.
"""

import dataclasses

from torch import Tensor, nn

from seqserve_export.layers import activate
from seqserve_export.pooling import Pooling, PoolingMode
from seqserve_export.transformer_config import Activation


@dataclasses.dataclass(frozen=True, kw_only=True)
class HiddenConfig:
    """The hidden layer of a head."""

    size: int
    activation: Activation
    has_bias: bool = True
    norm_epsilon: float | None = None
    """Of the norm after the activation; None means no norm."""
    has_norm_bias: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """The parts of a head."""

    num_outputs: int
    pooling: PoolingMode | None = None
    """None means that every position has its own outputs."""
    hidden: HiddenConfig | None = None
    has_bias: bool = True
    """The output layer has a bias."""


class Head(nn.Module):
    """Maps encoder states to logits."""

    def __init__(self, config: HeadConfig, model_size: int) -> None:
        super().__init__()
        self.config = config
        self.pooling = None if config.pooling is None else Pooling(config.pooling)
        self.hidden: nn.Linear | None = None
        self.norm: nn.LayerNorm | None = None
        size, hidden = model_size, config.hidden
        if hidden is not None:
            self.hidden = nn.Linear(model_size, hidden.size, bias=hidden.has_bias)
            size = hidden.size
            if hidden.norm_epsilon is not None:
                self.norm = nn.LayerNorm(size, eps=hidden.norm_epsilon, bias=hidden.has_norm_bias)
        self.output = nn.Linear(size, config.num_outputs, bias=config.has_bias)

    def forward(self, states: Tensor, lengths: Tensor) -> Tensor:
        """Maps states [B, S, M] with lengths [B] to logits: [B, V] with pooling, else [B, S, V]."""
        if self.pooling is not None:
            states = self.pooling(states, lengths)
        return self.project(states)

    def project(self, states: Tensor) -> Tensor:
        """Maps states [..., M], of sources or positions, to logits [..., V]."""
        if self.hidden is not None and self.config.hidden is not None:
            states = activate(self.hidden(states), self.config.hidden.activation)
        if self.norm is not None:
            states = self.norm(states)
        logits: Tensor = self.output(states)
        return logits
