"""What becomes of texts that are longer than the model reads: refused, cut, or read in windows."""

import dataclasses

from seqserve.errors import InvalidRequestError
from seqserve.passage import Side
from seqserve.served_model import ServedModel
from seqserve.v1 import encoding_pb2

_SIDES: dict[int, Side] = {
    encoding_pb2.TRUNCATION_DIRECTION_UNSPECIFIED: "right",
    encoding_pb2.TRUNCATION_DIRECTION_RIGHT: "right",
    encoding_pb2.TRUNCATION_DIRECTION_LEFT: "left",
}

_Request = (
    encoding_pb2.EmbedRequest
    | encoding_pb2.ClassifyRequest
    | encoding_pb2.ClassifyTokensRequest
    | encoding_pb2.RerankRequest
    | encoding_pb2.FillMaskRequest
)


@dataclasses.dataclass(frozen=True, slots=True)
class Cutting:
    """How long texts are made to fit."""

    truncate: bool
    """Whether they are cut."""
    side: Side = "right"
    stride: int | None = None
    """Tokens that neighbouring windows have in common; None for no windows."""


def resolve_cutting(request: _Request) -> Cutting:
    """Reads whether and where texts are cut.

    Raises:
        InvalidRequestError: There is no such side, or it would have no effect.
    """
    direction = request.truncation_direction
    if direction not in _SIDES:
        known = ", ".join(
            f"{number} ({name})" for name, number in encoding_pb2.TruncationDirection.items()
        )
        raise InvalidRequestError(
            "truncation_direction",
            f"`truncation_direction` must be one of {known}, but is {direction}",
        )
    if direction and not request.truncate:
        raise InvalidRequestError(
            "truncation_direction",
            "`truncation_direction` has an effect with `truncate` only; set `truncate`, or leave "
            "it out",
        )
    return Cutting(request.truncate, _SIDES[direction])


def add_windows(cutting: Cutting, stride: int, model: ServedModel) -> Cutting:
    """Has long texts read in windows.

    Raises:
        InvalidRequestError: They are cut already, or the windows would not advance.
    """
    if cutting.truncate:
        raise InvalidRequestError(
            "stride",
            "`stride` has no effect with `truncate`, which leaves nothing for a second window; "
            "leave one of them out",
        )
    room = model.source_tokenizer.count_room(model.manifest.max_source_length)
    if not 0 <= stride < room:
        raise InvalidRequestError(
            "stride",
            f"`stride` must be at least 0 and below {room}, the tokens of a text that a window "
            f"has room for, but is {stride}",
        )
    return dataclasses.replace(cutting, stride=stride)
