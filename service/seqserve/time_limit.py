"""What becomes of sequences whose time is up, or will be before they can be done: pure policy.

* ``deadline``: when the caller stops waiting, or the server's patience ends. A sequence that has
  not been started is refused as soon as it cannot be in time, by the least that its work can take;
  with no measurements yet it is tried.
* ``stop_at``: when the caller wants what there is. The live hypotheses end as they are; a sequence
  that was never started ends with an empty one.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

from seqserve.containment import contained
from seqserve.errors import DeadlineError, EngineError
from seqserve.pace import Estimate
from seqserve.search_state import FinishReason
from seqserve.sequence import Generation, Sequence


class Work(NamedTuple):
    """The least there is to do for a sequence that has not been started."""

    num_tokens: int
    """Source tokens to encode."""
    num_steps: int
    """Decode steps before it may end."""

    def seconds(self, estimate: Estimate) -> float:
        """The least time it takes."""
        return self.num_tokens * estimate.token_seconds + self.num_steps * estimate.step_seconds


def least_work(sequence: Sequence) -> Work:
    """What a sequence takes that ends as early as it may."""
    if sequence.search is None:
        return Work(sequence.source_length, 0)
    options = sequence.search.options
    num_steps = min(options.min_new_tokens + 1, options.max_new_tokens)
    return Work(sequence.source_length, len(options.target_prefix) + num_steps)


def due_answers(
    sequences: Iterable[Sequence], now: float
) -> Iterator[tuple[Sequence, Generation | EngineError | DeadlineError]]:
    """The answers of sequences whose time is up and whose callers are still there."""
    for sequence in sequences:
        if sequence.stop_at <= now and not sequence.future.done():
            yield sequence, contained(partial(_stop, sequence, now), "while a target was ended")
        elif sequence.deadline <= now and not sequence.future.done():
            yield sequence, DeadlineError(overdue_message(sequence.server_limit_seconds))


def early_answers(
    waiting: Iterable[Sequence], now: float, estimate: Estimate, most: Work
) -> Iterator[tuple[Sequence, DeadlineError]]:
    """The answers of waiting sequences that cannot be in time, though their time is not up.

    Args:
        waiting: The sequences.
        now: The time.
        estimate: What steps take at least.
        most: The work of none of them is more; spares a closer look at most of them.
    """
    horizon = now + most.seconds(estimate)
    for sequence in waiting:
        deadline = sequence.deadline
        if not now < deadline < horizon or sequence.stop_at <= deadline or sequence.future.done():
            continue
        needed = least_work(sequence).seconds(estimate)
        if now + needed > deadline:
            yield (
                sequence,
                DeadlineError(
                    f"the deadline cannot be met: the work takes {needed:.3f} seconds at least, "
                    f"and {deadline - now:.3f} are left; " + _remedy(sequence.server_limit_seconds)
                ),
            )


def overdue_message(server_limit_seconds: float | None, aim: str = "the work was done") -> str:
    """What a caller is told whose deadline has passed.

    Args:
        server_limit_seconds: What the server gives to a call; None for the caller's own deadline.
        aim: What should have come before it.
    """
    limit = "the deadline"
    if server_limit_seconds is not None:
        limit = f"the server's limit of {server_limit_seconds:g} seconds (max_request_seconds)"
    return f"{limit} passed before {aim}; {_remedy(server_limit_seconds)}"


def _remedy(server_limit_seconds: float | None) -> str:
    if server_limit_seconds is None:
        return "allow more time, or ask for less"
    return "ask for less, or generate with `max_time` below it"


def _stop(sequence: Sequence, now: float) -> Generation:
    """Ends a sequence with what it has, which may be nothing."""
    assert sequence.search is not None
    sequence.search.stop(FinishReason.TIME)
    if not sequence.rows:
        sequence.started_at = sequence.encoded_at = now
    sequence.finished_at = now
    return Generation(sequence.search.hypotheses(), sequence.timing())
