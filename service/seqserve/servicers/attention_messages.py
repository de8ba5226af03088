"""Weights of attention and placed tokens, as messages."""

from collections.abc import Iterable
from collections.abc import Sequence as Items

import numpy as np
from numpy.typing import NDArray

from seqserve.attention_kind import AttentionKind
from seqserve.attention_reduction import reduce_weights
from seqserve.explanation_record import ExplanationRecord
from seqserve.servicers.attention_choice import KINDS, AttentionChoice
from seqserve.tokenizer import TokenSpan
from seqserve.v1 import attention_pb2, model_pb2

_NUMBERS = {kind: number for number, kind in KINDS.items()}
_LENGTH_DELIMITED = 2


def to_attention(
    kind: AttentionKind, choice: AttentionChoice, weights: Items[NDArray[np.float32]]
) -> attention_pb2.Attention:
    """Reduces the weights [N, R, C] of the chosen layers of a kind."""
    reduced = reduce_weights(weights, choice.reduction)
    message = attention_pb2.Attention(
        kind=attention_pb2.AttentionKind.ValueType(_NUMBERS[kind]),
        layers=choice.layers[kind],
        heads=choice.heads,
        shape=reduced.shape,
    )
    message.MergeFromString(pack_floats(message.WEIGHTS_FIELD_NUMBER, reduced))
    return message


def pack_floats(field_number: int, numbers: NDArray[np.float32]) -> bytes:
    """The bytes of a field of numbers: a packed field is these, one after the other.

    To hand them over one by one takes six times as long, and Python's lock for a quarter of a
    second.

    Source: the protobuf encoding, https://protobuf.dev/programming-guides/encoding#packed
    """
    data = numbers.astype("<f4").tobytes()
    return _to_varint(field_number << 3 | _LENGTH_DELIMITED) + _to_varint(len(data)) + data


def _to_varint(number: int) -> bytes:
    digits = bytearray()
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def describe_attention(record: ExplanationRecord) -> model_pb2.AttentionSettings:
    """What can be shown of a model."""
    message = model_pb2.AttentionSettings(
        encoder_layer_count=record.num_encoder_layers,
        decoder_layer_count=record.num_decoder_layers,
        decoder_self_layer_count=record.layers.get(AttentionKind.DECODER_SELF, 0),
        head_count=record.num_heads,
    )
    if record.alignment is not None:
        message.alignment_agreement = record.alignment.agreement
        for layer, head in record.alignment.heads:
            message.alignment_heads.add(layer=layer, head=head)
    return message


def to_tokens(spans: Iterable[TokenSpan]) -> list[model_pb2.Token]:
    """Tokens with their places."""
    return [
        model_pb2.Token(
            id=span.token_id,
            text=span.text,
            start_offset=span.start,
            end_offset=span.end,
            is_special=span.is_special,
        )
        for span in spans
    ]
