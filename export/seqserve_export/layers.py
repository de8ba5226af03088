"""The layers of the Transformer and the blocks they are made of.

Their attention is in :mod:`seqserve_export.multi_head_attention`.

Shapes: B rows, S source length, T target length, M model width.

Source: Vaswani et al. 2017, arXiv:1706.03762 (architecture); Xiong et al. 2020, arXiv:2002.04745
(norm before the block); Shazeer 2020, arXiv:2002.05202 (gated feed-forward).
"""

from torch import Tensor, nn
from torch.nn import functional

from seqserve_export.multi_head_attention import CrossAttention, SelfAttention
from seqserve_export.transformer_config import BlockConfig


class FeedForward(nn.Module):
    """Two linear layers with an activation, applied at each position alone."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        size, inner_size = config.model_size, config.feed_forward_size
        self.activation = config.activation
        self.up = nn.Linear(size, inner_size, bias=config.has_bias)
        self.gate = nn.Linear(size, inner_size, bias=config.has_bias) if config.is_gated else None
        self.down = nn.Linear(inner_size, size, bias=config.has_bias)

    def forward(self, states: Tensor) -> Tensor:
        """Maps [B, T, M] to [B, T, M]."""
        if self.gate is None:
            hidden = activate(self.up(states), self.activation)
        else:
            hidden = activate(self.gate(states), self.activation) * self.up(states)
        projected: Tensor = self.down(hidden)
        return projected


def activate(states: Tensor, activation: str) -> Tensor:
    """Applies the activation of that name."""
    match activation:
        case "relu":
            return functional.relu(states)
        case "gelu":
            return functional.gelu(states)
        case "gelu_tanh":
            return functional.gelu(states, approximate="tanh")
        case "silu":
            return functional.silu(states)
        case "tanh":
            return functional.tanh(states)
    raise ValueError(f"unknown activation {activation!r}")


def make_norm(config: BlockConfig) -> nn.Module:
    """Makes the norm that the configuration names."""
    if config.norm == "rms":
        return nn.RMSNorm(config.model_size, eps=config.norm_epsilon)
    return nn.LayerNorm(config.model_size, eps=config.norm_epsilon, bias=config.has_norm_bias)


class Residual(nn.Module):
    """Adds a block's output to its input, with the norm before the block or after the sum."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.is_pre = config.norm_placement == "pre"
        self.norm = make_norm(config)
        self.dropout = nn.Dropout(config.dropout)

    def enter(self, states: Tensor) -> Tensor:
        """What the block sees."""
        normed: Tensor = self.norm(states) if self.is_pre else states
        return normed

    def leave(self, states: Tensor, block_output: Tensor) -> Tensor:
        """What the next block gets."""
        total = states + self.dropout(block_output)
        left: Tensor = total if self.is_pre else self.norm(total)
        return left


class EncoderLayer(nn.Module):
    """Self-attention over the source, then a feed-forward block."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.self_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        states: Tensor,
        lengths: Tensor,
        bias: Tensor | None,
        rotary: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Maps source states [B, S, M] to [B, S, M]."""
        residual = self.self_attention_residual
        attended, _ = self.self_attention(
            residual.enter(states), lengths, is_causal=False, bias=bias, rotary=rotary
        )
        states = residual.leave(states, attended)
        residual = self.feed_forward_residual
        return residual.leave(states, self.feed_forward(residual.enter(states)))


class DecoderLayer(nn.Module):
    """Self-attention over the target so far, cross-attention to the source, feed-forward."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.self_attention = SelfAttention(config)
        self.self_attention_residual = Residual(config)
        self.cross_attention = CrossAttention(config)
        self.cross_attention_residual = Residual(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_residual = Residual(config)

    def forward(
        self,
        states: Tensor,
        target_lengths: Tensor,
        source: tuple[Tensor, Tensor],
        source_lengths: Tensor,
        past: tuple[Tensor, Tensor] | None,
        bias: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Maps target states [B, T, M] to [B, T, M]; also returns both pairs of keys and values."""
        residual = self.self_attention_residual
        attended, present = self.self_attention(
            residual.enter(states), target_lengths, is_causal=True, past=past, bias=bias
        )
        states = residual.leave(states, attended)
        residual = self.cross_attention_residual
        attended, source = self.cross_attention(residual.enter(states), source, source_lengths)
        states = residual.leave(states, attended)
        residual = self.feed_forward_residual
        states = residual.leave(states, self.feed_forward(residual.enter(states)))
        return states, present, source
