"""Arguments that several calls take: texts or token ids, languages, a priority."""

import numbers
from collections.abc import Sequence as Items
from typing import Literal, get_args

from seqserve.v1 import generation_pb2, priority_pb2

Source = str | Items[int]
"""A text, or token ids."""

Languages = str | Items[str]
"""One language of all inputs, or one for each; empty for the model's default."""

Priority = Literal["", "low", "normal", "high"]
"""Whose turn comes first while inputs wait; empty for normal."""


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
        generation_pb2.GenerateInput | generation_pb2.ScoreTargetsInput | generation_pb2.Target
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
    if priority not in get_args(Priority):
        raise ValueError(f"`priority` must be low, normal or high, but is {priority!r}")
    return priority_pb2.Priority.Value(f"PRIORITY_{priority.upper() or 'UNSPECIFIED'}")
