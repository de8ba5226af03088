"""The books of the callers: each call is entered before it is sent, and again when it has ended.

Lines go to the file at once, so that what a killed process has entered is there.
"""

import dataclasses
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from soak.answer import Answer


@dataclasses.dataclass
class Call:
    """What the ledger has about one call."""

    id: str
    case: str
    """Its name; empty for calls that are no case."""
    fault: str
    """What was done to it on purpose, and marks of how it was sent."""
    version: str
    """That it asked for; empty for none."""
    begun_at: float
    """Seconds since the epoch, like all times here: processes compare them."""
    ends: list[tuple[str, float, str]] = dataclasses.field(default_factory=list)
    """Status codes with times and texts; one, if all is well."""
    answers: list[Answer] = dataclasses.field(default_factory=list)

    @property
    def bare_fault(self) -> str:
        """What was done to it, without how it was sent."""
        return self.fault.partition("+")[0]

    @property
    def is_fragile(self) -> bool:
        """Whether it went over the connection that is cut."""
        return "+fragile" in self.fault

    @property
    def is_metered(self) -> bool:
        """Whether it came with the token that may come seldom."""
        return "+metered" in self.fault


@dataclasses.dataclass
class Book:
    """One ledger, read."""

    owner: str
    calls: dict[str, Call] = dataclasses.field(default_factory=dict)
    cuts: list[float] = dataclasses.field(default_factory=list)
    """When connections of this caller were cut."""
    strays: list[str] = dataclasses.field(default_factory=list)
    """Ids that were answered without having been entered, or were entered twice."""


class Ledger:
    """Writes one; the calls of one process."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def begin(self, call_id: str, case: str, fault: str, version: str) -> None:
        """Enters a call that is about to be sent."""
        self._write("begin", call_id, case, fault, version, time.time())

    def answer(self, call_id: str, answers: Iterable[Answer]) -> None:
        """Enters what has been answered."""
        for answer in answers:
            self._write("answer", call_id, *answer)

    def end(self, call_id: str, code: str, text: str = "") -> None:
        """Enters how a call has ended."""
        self._write("end", call_id, code, time.time(), text)

    def cut(self) -> None:
        """Enters that the connection was cut."""
        self._write("cut", "", time.time())

    def _write(self, *values: Any) -> None:
        self._file.write(json.dumps(values).encode() + b"\n")


def read_ledger(path: Path) -> Book:
    """Reads a ledger whose process has ended, in whatever way."""
    book = Book(path.stem)
    for kind, call_id, *values in _read_lines(path):
        call = book.calls.get(call_id)
        if kind == "cut":
            book.cuts.append(values[0])
        elif kind == "begin" and call is None:
            book.calls[call_id] = Call(call_id, *values)
        elif kind == "end" and call is not None:
            code, at, text = values
            call.ends.append((code, at, text))
        elif kind == "answer" and call is not None:
            call.answers.append(Answer(*values))
        else:
            book.strays.append(call_id)
    return book


def _read_lines(path: Path) -> Iterator[list[Any]]:
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):  # the last line of a killed process may be half of one
            yield json.loads(line)
