"""What a soak leaves behind, for the checks."""

import collections
import dataclasses

from soak.ledger import Book
from soak.server_log import ServerLog
from soak.slope import Sample
from soak.vitals import Vitals

Expected = tuple[str, str]
"""Status code and digest of an answer."""


@dataclasses.dataclass
class Records:
    """All of it; times are seconds since the epoch."""

    expected: dict[tuple[str, int, str], Expected]
    """By case, item and version: what was answered when nobody else called."""
    books: list[Book]
    """Of the callers."""
    killed: set[str]
    """Callers that were killed."""
    crashed: list[str]
    """Callers that ended in a way nobody planned."""
    bursts: list[tuple[float, float]]
    """When more was asked for than the server takes."""
    num_planted: int
    """Batches that were to fail."""
    log: ServerLog
    samples: list[Sample]
    """Resident bytes of the server, by the time."""
    before: Vitals
    after: Vitals
    shared: dict[str, float]
    """How often something became of answers that were kept or shared, by what it was."""
    incidents: collections.Counter[str]
    damaged: list[str]
    """Versions that had to be refused."""
    exit_code: int | None
    """None if the server had to be killed."""
    stop_seconds: float
    seconds: float
    """While callers called."""

    @property
    def num_calls(self) -> int:
        """That were entered."""
        return sum(len(book.calls) for book in self.books)
