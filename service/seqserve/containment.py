"""Faults in the search of one sequence: the end of that sequence, and of nobody else."""

from collections.abc import Callable
from typing import TypeVar

from seqserve.errors import EngineError

_Result = TypeVar("_Result")


def contained(step: Callable[[], _Result], occasion: str) -> _Result | EngineError:
    """What a step of a search returns, or its fault as an error that names no detail.

    The fault is the cause of the error, for the log.

    Args:
        step: What may fail.
        occasion: When that is, as in "while a target grew".
    """
    try:
        return step()
    except BaseException as fault:  # a library in Rust that panics raises no Exception
        error = EngineError(f"{type(fault).__name__} {occasion}")
        error.__cause__ = fault
        return error
