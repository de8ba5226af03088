"""Sessions that lanes share: who computes with how many threads, and that no bit depends on it."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seqserve.shared_sessions import SharedSessions

PATIENCE_SECONDS = 20.0
OUTPUTS = ["sentence_embedding"]
FEEDS = {
    "input_ids": np.array([[5, 6, 7, 8], [9, 5, 0, 0]]),
    "source_lengths": np.array([4, 2], np.int32),
}


@pytest.fixture
def graph(store: Path) -> Path:
    """The graph of a model that embeds."""
    return store / "sentence" / "1" / "embed.onnx"


@pytest.mark.parametrize(
    ("num_threads", "num_lanes", "is_wide", "threads"),
    [
        (1, 1, True, [1]),
        (2, 1, True, [2]),
        (2, 2, True, [1, 2]),
        (2, 2, False, [1]),
        (4, 2, True, [2, 2, 4]),
        (4, 2, False, [2, 2]),
        (2, 4, True, [1, 2]),
    ],
)
def test_sessions_are_no_more_than_needed(
    num_threads: int,
    num_lanes: int,
    is_wide: bool,
    threads: list[int],
    graph: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One session does for lanes of one thread; wide is who alone has all threads."""
    opened: list[int] = []

    def open_session(path: Path, *, num_threads: int, device: str) -> object:
        assert (path, device) == (graph, "cpu")
        opened.append(num_threads)
        return object()

    monkeypatch.setattr("seqserve.shared_sessions.open_session", open_session)
    SharedSessions(graph, num_threads=num_threads, num_lanes=num_lanes, is_wide=is_wide)
    assert opened == threads


def test_only_who_is_alone_has_all_threads(graph: Path) -> None:
    """A lane that begins while another runs, or just ran, computes with its own; same results."""
    times = iter([0.0, 1.0, 2.0, 3.0, 3.001, 3.002, 3.003, 3.004, 4.0, 5.0])
    sessions = SharedSessions(graph, num_threads=2, num_lanes=2, clock=lambda: next(times))
    wide = RecordingSession(sessions._wide, "wide")
    narrow = RecordingSession(sessions._sessions[0], "narrow")
    sessions._wide = wide
    sessions._sessions = [narrow]
    alone = sessions.run(0, OUTPUTS, FEEDS)
    wide.may_end.clear()
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(sessions.run(0, OUTPUTS, FEEDS)))
    first.start()
    assert wide.has_begun.wait(PATIENCE_SECONDS)
    beside = sessions.run(1, OUTPUTS, FEEDS)
    wide.may_end.set()
    first.join()
    soon_after, after = (sessions.run(1, OUTPUTS, FEEDS) for _ in range(2))
    assert (wide.num_runs, narrow.num_runs) == (3, 2)
    for (array,) in (*found, beside, soon_after, after):
        assert array.tobytes() == alone[0].tobytes()


def test_a_run_that_fails_is_over(graph: Path) -> None:
    """Whoever comes after it is alone again."""
    sessions = SharedSessions(graph, num_threads=2, num_lanes=2)
    wide = RecordingSession(sessions._wide, "wide")
    sessions._wide = wide
    with pytest.raises(ValueError, match="source_lengths"):
        sessions.run(0, OUTPUTS, {"input_ids": FEEDS["input_ids"]})
    sessions.run(0, OUTPUTS, FEEDS)
    assert wide.num_runs == 2


class RecordingSession:
    """A session that counts its runs and can be kept from ending one."""

    def __init__(self, session: Any, name: str) -> None:
        self._session = session
        self.name = name
        self.num_runs = 0
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        self.may_end.set()

    def run(self, *arguments: Any) -> Any:
        """Runs the graph."""
        self.num_runs += 1
        if not self.may_end.is_set():
            self.has_begun.set()
            assert self.may_end.wait(PATIENCE_SECONDS)
        return self._session.run(*arguments)
