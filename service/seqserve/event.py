"""What is told of a sequence: tokens that are newly decided, and its end."""

import dataclasses
from functools import partial

from seqserve.containment import contained
from seqserve.errors import EngineError
from seqserve.sequence import Answer, Sequence


@dataclasses.dataclass(frozen=True, slots=True)
class Event:
    """Something to tell the event loop about a sequence."""

    sequence: Sequence
    tokens: list[int] = dataclasses.field(default_factory=list)
    """Newly decided tokens of a streamed sequence."""
    answer: Answer | Exception | None = None
    """The final answer, if this is the end."""


def make_end(sequence: Sequence, answer: Answer | Exception) -> Event:
    """The last event of a sequence, with what a caller who streams does not know yet."""
    if isinstance(answer, EngineError):
        return Event(sequence, answer=answer)
    tokens = contained(partial(take_decided, sequence), "while a target was ended")
    if isinstance(tokens, EngineError):
        return Event(sequence, answer=tokens)
    return Event(sequence, tokens, answer)


def take_decided(sequence: Sequence) -> list[int]:
    """The tokens that a caller who streams does not know yet."""
    if sequence.on_tokens is None:
        return []
    assert sequence.search is not None
    tokens = sequence.search.decided_tokens()[sequence.num_streamed :]
    sequence.num_streamed += len(tokens)
    return tokens
