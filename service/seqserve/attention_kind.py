"""The kinds of attention a model has, and what an explain graph calls their tensors."""

import enum


class AttentionKind(enum.StrEnum):
    """Who attends to what."""

    ENCODER_SELF = "encoder_self"
    """Source to source."""
    DECODER_SELF = "decoder_self"
    """Target to what was written of it before."""
    CROSS = "cross"
    """Target to source."""


_NAMES = {
    AttentionKind.ENCODER_SELF: "encoder",
    AttentionKind.DECODER_SELF: "decoder",
    AttentionKind.CROSS: "cross",
}


def weight_names(kind: AttentionKind, num_layers: int) -> list[str]:
    """The outputs of a kind, one for each layer: weights [B, N, T, P] of the N chosen heads.

    They are Optimum's: ``encoder_attentions.0``.
    """
    return [f"{_NAMES[kind]}_attentions.{layer}" for layer in range(num_layers)]


def head_names(kind: AttentionKind, num_layers: int) -> list[str]:
    """The inputs of a kind, one for each layer: indices of the chosen heads, [N], maybe none."""
    return [f"{_NAMES[kind]}_heads.{layer}" for layer in range(num_layers)]
