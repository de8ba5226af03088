"""Which weights of attention a request asks for, and whether they are too many."""

import dataclasses
from collections.abc import Iterable
from collections.abc import Sequence as Items
from typing import NamedTuple

from seqserve.attention_kind import AttentionKind
from seqserve.attention_reduction import Reduction, size_of
from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError, UnsupportedTaskError
from seqserve.explainer import Explainer
from seqserve.explanation_record import ExplanationRecord
from seqserve.served_model import ServedModel
from seqserve.v1 import attention_pb2

KINDS: dict[int, AttentionKind] = {
    attention_pb2.ATTENTION_KIND_ENCODER_SELF: AttentionKind.ENCODER_SELF,
    attention_pb2.ATTENTION_KIND_DECODER_SELF: AttentionKind.DECODER_SELF,
    attention_pb2.ATTENTION_KIND_CROSS: AttentionKind.CROSS,
}
_REDUCTIONS: dict[int, Reduction] = {
    attention_pb2.ATTENTION_REDUCTION_UNSPECIFIED: Reduction.NONE,
    attention_pb2.ATTENTION_REDUCTION_NONE: Reduction.NONE,
    attention_pb2.ATTENTION_REDUCTION_MEAN_HEADS: Reduction.MEAN_HEADS,
    attention_pb2.ATTENTION_REDUCTION_MEAN: Reduction.MEAN,
    attention_pb2.ATTENTION_REDUCTION_MAX: Reduction.MAX,
    attention_pb2.ATTENTION_REDUCTION_ROLLOUT: Reduction.ROLLOUT,
}
NUMBER_BYTES = 4
_NUM_WORKING_COPIES = 3
"""Matrices of all heads of a layer that exist at once while its weights are made."""


@dataclasses.dataclass(frozen=True, slots=True)
class AttentionChoice:
    """The weights that are asked for."""

    layers: dict[AttentionKind, tuple[int, ...]]
    """Of each kind, in the order of the kinds."""
    heads: tuple[int, ...]
    reduction: Reduction

    @property
    def has_target(self) -> bool:
        """Whether it takes a target to make them."""
        return set(self.layers) != {AttentionKind.ENCODER_SELF}


class Lengths(NamedTuple):
    """Tokens of a source, and of its target."""

    source: int
    target: int

    def cells(self, kind: AttentionKind) -> int:
        """The weights of one head."""
        rows = self.source if kind is AttentionKind.ENCODER_SELF else self.target
        return rows * (self.target if kind is AttentionKind.DECODER_SELF else self.source)

    def describe(self, choice: AttentionChoice) -> str:
        """For messages, without a target that makes no difference."""
        target = f" and {self.target} target" if choice.has_target else ""
        return f"{self.source} source{target} tokens"


def find_explainer(model: ServedModel) -> Explainer:
    """What looks inside a model.

    Raises:
        UnsupportedTaskError: The model was exported without it.
    """
    if model.explainer is None:
        raise UnsupportedTaskError(
            f"model {model.manifest.name!r} cannot tell its attention: it has no explain graph; if "
            "it attends to anything, export it again, without --no-explain"
        )
    return model.explainer


def resolve_choice(
    request: attention_pb2.AttendRequest, record: ExplanationRecord
) -> AttentionChoice:
    """Reads kinds, layers, heads and the reduction of a request.

    Raises:
        InvalidRequestError: The model has no such kind, layer or head, one is named twice, or
            the reduction does not go with them.
    """
    if request.reduction not in _REDUCTIONS:
        raise InvalidRequestError(
            "reduction",
            f"`reduction` must be one of {_list(attention_pb2.AttentionReduction.items())}, but is "
            f"{request.reduction}",
        )
    reduction = _REDUCTIONS[request.reduction]
    kinds = _resolve_kinds(request, record, reduction)
    if reduction is Reduction.ROLLOUT and request.layers:
        raise InvalidRequestError(
            "layers",
            "`layers` must be unset with the reduction ATTENTION_REDUCTION_ROLLOUT, which goes "
            "through all layers",
        )
    layers = {}
    for kind in kinds:
        num_layers = record.layers[kind]
        layers[kind] = _resolve_indices(
            request.layers, num_layers, "layers", f"the {num_layers} layers of {kind}"
        )
    heads = _resolve_indices(
        request.heads, record.num_heads, "heads", f"the {record.num_heads} heads of a layer"
    )
    return AttentionChoice(layers, heads, reduction)


def check_size(
    choice: AttentionChoice, record: ExplanationRecord, lengths: Lengths, config: ServerConfig
) -> None:
    """Refuses weights that take too much memory, or are too many for a reply.

    Raises:
        InvalidRequestError: They are; the message says how to ask for less.
    """
    check_memory(choice, record, lengths, config, "", "ask for fewer `kinds`, `layers` or `heads`")
    num_bytes = NUMBER_BYTES * sum(
        lengths.cells(kind) * size_of(len(layers), len(choice.heads), choice.reduction)
        for kind, layers in choice.layers.items()
    )
    if num_bytes > config.max_message_bytes:
        raise InvalidRequestError(
            "",
            f"the weights of attention take {num_bytes} bytes with {lengths.describe(choice)}, but "
            f"a reply may have {config.max_message_bytes} (max_message_bytes); ask for fewer "
            "`kinds`, `layers` or `heads`, for a `reduction`, or shorten the text",
        )


def check_memory(
    choice: AttentionChoice,
    record: ExplanationRecord,
    lengths: Lengths,
    config: ServerConfig,
    field: str,
    remedy: str,
) -> None:
    """Refuses weights that take too much memory to compute.

    Args:
        choice: The weights.
        record: Of the model.
        lengths: Of source and target.
        config: Limits of the server.
        field: What asks for them, for the message.
        remedy: What to do instead, beside shortening the text.

    Raises:
        InvalidRequestError: They do.
    """
    chosen = sum(
        lengths.cells(kind) * len(layers) * len(choice.heads)
        for kind, layers in choice.layers.items()
    )
    largest = max(lengths.cells(kind) for kind in record.layers)
    num_bytes = (chosen + _NUM_WORKING_COPIES * record.num_heads * largest) * NUMBER_BYTES
    if num_bytes > config.max_attention_bytes:
        raise InvalidRequestError(
            field,
            f"the weights of attention take {num_bytes} bytes to compute with "
            f"{lengths.describe(choice)}, but may take {config.max_attention_bytes} "
            f"(max_attention_bytes); {remedy}, or shorten the text",
        )


def _resolve_kinds(
    request: attention_pb2.AttendRequest, record: ExplanationRecord, reduction: Reduction
) -> list[AttentionKind]:
    own = [kind for kind in KINDS.values() if kind in record.layers]
    if not request.kinds:
        return [
            kind
            for kind in own
            if reduction is not Reduction.ROLLOUT or kind is not AttentionKind.CROSS
        ]
    for index, number in enumerate(request.kinds):
        field = f"kinds[{index}]"
        if KINDS.get(number) not in own:
            names = [
                item for item in attention_pb2.AttentionKind.items() if KINDS.get(item[1]) in own
            ]
            raise InvalidRequestError(
                field, f"`{field}` must be one of the model's, {_list(names)}, but is {number}"
            )
        if number in request.kinds[:index]:
            raise InvalidRequestError(field, f"`{field}` must not be named twice: {number}")
        if reduction is Reduction.ROLLOUT and KINDS[number] is AttentionKind.CROSS:
            raise InvalidRequestError(
                field,
                f"`{field}` must not be ATTENTION_KIND_CROSS with the reduction "
                "ATTENTION_REDUCTION_ROLLOUT, which is one of self-attention; choose another "
                "reduction, or leave the kind out",
            )
    return [kind for number, kind in KINDS.items() if number in request.kinds]


def _resolve_indices(chosen: Items[int], number: int, name: str, what: str) -> tuple[int, ...]:
    """The indices that were chosen; all if none was."""
    for index, value in enumerate(chosen):
        field = f"{name}[{index}]"
        if not 0 <= value < number:
            raise InvalidRequestError(
                field, f"`{field}` must be one of {what}, from 0 to {number - 1}, but is {value}"
            )
        if value in chosen[:index]:
            raise InvalidRequestError(field, f"`{field}` must not be named twice: {value}")
    return tuple(chosen) or tuple(range(number))


def _list(items: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{number} ({name})" for name, number in items)
