"""Attention: arguments to the request, its reply to a result."""

from collections.abc import Sequence as Items
from typing import Any, Literal, TypedDict

import numpy as np

from seqserve.client.arguments import Priority, Source, set_source, to_enum_name, to_priority
from seqserve.client.attention_results import Attention, AttentionKind, AttentionWeights
from seqserve.client.model_messages import to_token
from seqserve.v1 import attention_pb2

Reduction = Literal["", "none", "mean_heads", "mean", "max", "rollout"]
"""What is made of the weights of several layers and heads; empty for none."""

_KINDS: dict[str, attention_pb2.AttentionKind.ValueType] = {
    "encoder_self": attention_pb2.ATTENTION_KIND_ENCODER_SELF,
    "decoder_self": attention_pb2.ATTENTION_KIND_DECODER_SELF,
    "cross": attention_pb2.ATTENTION_KIND_CROSS,
}


class AttendOptions(TypedDict, total=False):
    """What to look at. The API describes each field."""

    model: str
    version: str
    target: Source
    """Text or token ids; empty to have it generated."""
    text_pair: str
    source_language: str
    target_language: str
    kinds: Items[AttentionKind]
    """Empty for all."""
    layers: Items[int]
    """Empty for all."""
    heads: Items[int]
    """Empty for all."""
    reduction: Reduction
    truncate: bool
    priority: Priority
    prompt_name: str | None
    """None for the model's default, empty for none."""


def attend_request(source: Source, options: AttendOptions) -> attention_pb2.AttendRequest:
    """A request for the attention of one text, or one list of token ids."""
    values: dict[str, Any] = {**options}
    message = attention_pb2.AttendRequest(
        model_name=values.pop("model", ""),
        model_version=values.pop("version", ""),
        kinds=_to_kinds(values.pop("kinds", ())),
        reduction=to_enum_name(
            "ATTENTION_REDUCTION", values.pop("reduction", ""), Reduction, "reduction"
        ),
        priority=to_priority(values.pop("priority", "")),
    )
    set_source(message.input, source)
    target = values.pop("target", "")
    if len(target):
        set_source(message.target, target)
    for name in ("text_pair", "source_language", "target_language"):
        setattr(message.input, name, values.pop(name, ""))
    message.MergeFrom(attention_pb2.AttendRequest(**values))
    return message


def _to_kinds(kinds: Items[str]) -> list[attention_pb2.AttentionKind.ValueType]:
    if isinstance(kinds, str):
        raise TypeError(f"`kinds` must be a list: [{kinds!r}]")
    for kind in kinds:
        if kind not in _KINDS:
            raise ValueError(f"`kinds` must be of {', '.join(_KINDS)}, but has {kind!r}")
    return [_KINDS[kind] for kind in kinds]


def to_attention(message: attention_pb2.AttendResponse) -> Attention:
    """The reply to one call."""
    weights = {one.kind: _to_weights(one) for one in message.attentions}
    return Attention(
        source_tokens=tuple(map(to_token, message.source_tokens)),
        target_tokens=tuple(map(to_token, message.target_tokens)),
        decoder_input_tokens=tuple(map(to_token, message.decoder_input_tokens)),
        source_text=message.source_text,
        target_text=message.target_text,
        pair_token_index=message.pair_token_index,
        truncated_token_count=message.truncated_token_count,
        seconds=message.attend_duration.ToNanoseconds() / 1e9,
        encoder_self=weights.get(_KINDS["encoder_self"]),
        decoder_self=weights.get(_KINDS["decoder_self"]),
        cross=weights.get(_KINDS["cross"]),
    )


def _to_weights(message: attention_pb2.Attention) -> AttentionWeights:
    return AttentionWeights(
        weights=np.array(message.weights, np.float32).reshape(message.shape),
        layers=tuple(message.layers),
        heads=tuple(message.heads),
    )
