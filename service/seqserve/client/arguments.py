"""Arguments that several calls take: texts or token ids, languages, a priority."""

import numbers
from collections.abc import Sequence as Items
from typing import Any, Literal, get_args

from seqserve.v1 import attention_pb2, generation_pb2, priority_pb2

Source = str | Items[int]
"""A text, or token ids."""

Languages = str | Items[str]
"""One language of all inputs, or one for each; empty for the model's default."""

Priority = Literal["", "low", "normal", "high"]
"""Whose turn comes first while inputs wait; empty for normal."""

TruncationDirection = Literal["", "right", "left"]
"""Which side is cut; empty for the end."""


def as_list(inputs: Source | Items[Source]) -> list[Source]:
    """One text becomes a list of one; a sequence stays what it is."""
    if isinstance(inputs, str):
        return [inputs]
    listed = list(inputs)
    if listed and isinstance(listed[0], numbers.Integral):
        raise TypeError("token ids of one text must be wrapped in a list: [[5, 6, 7]]")
    return listed  # type: ignore[return-value]


def as_texts(texts: str | Items[str]) -> list[str]:
    """One text becomes a list of one."""
    return [texts] if isinstance(texts, str) else list(texts)


def as_texts_only(texts: Items[str], name: str) -> list[str]:
    """A list; one text would be taken for its letters."""
    if isinstance(texts, str):
        raise TypeError(f"`{name}` must be a list of texts, but is one text")
    return list(texts)


def spread(languages: Languages, num_inputs: int, name: str) -> list[str]:
    """The language of each input."""
    if isinstance(languages, str):
        return [languages] * num_inputs
    if len(languages) != num_inputs:
        raise ValueError(
            f"`{name}` must be one language or one for each input, but there are "
            f"{len(languages)} for {num_inputs} inputs"
        )
    return list(languages)


def set_source(
    message: (
        generation_pb2.GenerateInput
        | generation_pb2.ScoreTargetsInput
        | generation_pb2.Target
        | attention_pb2.AttendInput
    ),
    text: Source,
) -> None:
    """Sets text or token ids of a message."""
    if isinstance(text, str):
        message.text = text
    else:
        message.token_ids.values.extend(text)


def to_priority(priority: Priority) -> priority_pb2.Priority.ValueType:
    """The value of a word."""
    return priority_pb2.Priority.Value(to_enum_name("PRIORITY", priority, Priority, "priority"))


def to_enum_name(prefix: str, value: str, choices: Any, name: str) -> Any:
    """The name of a value of the API; messages take it for its number.

    Args:
        prefix: Of all names.
        value: One of the choices; empty for unspecified.
        choices: A ``Literal``.
        name: Of the argument.
    """
    known = get_args(choices)
    if value not in known:
        listed = ", ".join(filter(None, known))
        raise ValueError(f"`{name}` must be one of {listed}, but is {value!r}")
    return f"{prefix}_{value.upper() or 'UNSPECIFIED'}"
