"""The sessions of one graph that the lanes of an encoder share.

A lane computes with threads of its own, one where there are as many lanes as processors; threads
that share out each operator of one batch wait for each other after it. A batch that is alone has
all threads instead: then nobody else has use for them, and the batch is done sooner. It is not
alone in the moment between two batches of another lane.

No bit of a result depends on the number of threads.
"""

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime
from numpy.typing import NDArray

from seqserve.device import Device
from seqserve.interruption import run_interruptibly
from seqserve.session import check_names, open_session

_PAUSE_SECONDS = 0.005
"""How long a lane that has run a batch is likely to run another."""


class SharedSessions:
    """Sessions with few threads, one of which a lane runs in, and one with all threads."""

    def __init__(
        self,
        path: Path,
        *,
        num_threads: int,
        num_lanes: int = 1,
        is_wide: bool = True,
        device: Device = "cpu",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Opens them.

        Args:
            path: The graph.
            num_threads: Threads of all lanes together.
            num_lanes: Lanes that share them.
            is_wide: Whether a batch that is alone has all threads. With several lanes that takes
                the memory of one more session.
            device: Where it is computed.
            clock: Tells seconds.

        Raises:
            ModelFolderError: onnxruntime rejects the file.
            ConfigurationError: The device cannot be used.
        """
        self._path = path
        self._lock = threading.Lock()
        self._clock = clock
        self._num_running = 0
        self._ended_at: dict[int, float] = {}
        """When each lane's last batch was done."""
        threads_per_lane = max(1, num_threads // num_lanes)
        # Runs of one session share its threads and would wait for each other; on a single thread a
        # run is its caller's alone.
        num_sessions = 1 if threads_per_lane == 1 else num_lanes
        self._sessions = [
            open_session(path, num_threads=threads_per_lane, device=device)
            for _ in range(num_sessions)
        ]
        self._wide = self._sessions[0]
        if is_wide and threads_per_lane < num_threads:
            self._wide = open_session(path, num_threads=num_threads, device=device)

    def check_names(self, inputs: list[str], outputs: list[str]) -> None:
        """Checks that the graph has the tensors an engine will bind.

        Raises:
            ModelFolderError: An input or output is missing or unknown; the message lists all.
        """
        check_names(self._wide, self._path, inputs, outputs)

    def run(
        self,
        lane: int,
        outputs: list[str],
        feeds: Mapping[str, NDArray[Any]],
        options: onnxruntime.RunOptions | None = None,
    ) -> list[NDArray[Any]]:
        """Runs a batch of a lane: with all threads if no other lane runs one.

        Raises:
            PassInterruptedError: It was ended by its options.
        """
        session = self._enter(lane)
        try:
            arrays = run_interruptibly(session, outputs, dict(feeds), options)
        finally:
            with self._lock:
                self._num_running -= 1
                self._ended_at[lane] = self._clock()
        return arrays

    def _enter(self, lane: int) -> onnxruntime.InferenceSession:
        with self._lock:
            self._num_running += 1
            since = self._clock() - _PAUSE_SECONDS
            others = (at for other, at in self._ended_at.items() if other != lane)
            is_alone = self._num_running == 1 and all(at <= since for at in others)
        return self._wide if is_alone else self._sessions[lane % len(self._sessions)]
