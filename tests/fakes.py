"""Doubles of what the service core talks to, and short ways to make its records."""

import asyncio
import math
import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from seqserve.batch import Batch, Outcome, Phase
from seqserve.generate_options import GenerateOptions
from seqserve.search import make_search
from seqserve.search_state import Candidate
from seqserve.sequence import Priority, Promise, Sequence
from seqserve.task_record import GenerationRecord

START, EOS = 1, 2
"""Special tokens of the searches that are made here."""


class FakeClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Moves on."""
        self.now += seconds


class FakePromise:
    """A future without an event loop."""

    def __init__(self) -> None:
        self.is_done = False

    def done(self) -> bool:
        """Whether it was answered or abandoned."""
        return self.is_done


class FakeEngine:
    """Scripted outcomes instead of a model.

    Without a script every greedy hypothesis continues with the tokens 10, 11, 12 and so on, beams
    likewise, and vectors hold the source's length.
    """

    def __init__(self, first_phase: Phase = "encode") -> None:
        self.first_phase: Phase = first_phase
        self.options: Any = None
        """What the last batch can be ended with."""
        self.batches: list[tuple[str, int]] = []
        """Phase and number of sequences of every batch it was given."""
        self.seen: list[Sequence] = []
        """The sequences of every encode or embed batch."""
        self.script: Callable[[Batch], list[Outcome]] = run_plainly
        self.gate = threading.Event()
        """Batches wait until it is set."""
        self.gate.set()
        self.arrived = threading.Event()
        """Set when a batch has come."""
        self.released = threading.Event()
        """Set when memory was given back."""

    def run(self, batch: Batch, options: Any = None) -> list[Outcome]:
        """Does what the script says."""
        self.options = options
        self.batches.append((batch.phase, len(batch.sequences)))
        if batch.phase != "decode":
            self.seen += batch.sequences
        self.arrived.set()
        assert self.gate.wait(timeout=10), "nobody opened the gate"
        return self.script(batch)

    def release(self) -> None:
        """Takes note of it."""
        self.released.set()


def run_plainly(batch: Batch) -> list[Outcome]:
    """The outcomes of an engine that counts: token 10, then 11, and so on."""
    if batch.phase == "encode":
        return [None] * len(batch.sequences)
    if batch.phase == "embed":
        return [np.array([sequence.source_length], np.float32) for sequence in batch.sequences]
    return [count_on(sequence) for sequence in batch.sequences]


def count_on(sequence: Sequence) -> list[Candidate]:
    """Candidates that continue every hypothesis with the next number, never with the end."""
    search = sequence.search
    assert search is not None
    token = 10 + search.target_length
    if search.options.num_beams == 1:
        return [Candidate(index, token, 0.0, 0.0) for index in range(search.num_rows)]
    return [
        Candidate(index // 2, token + index % 2, -1.0 - index, -1.0)
        for index in range(2 * search.num_rows)
    ]


def make_sequence(
    source: Iterable[int] = (5, 6, 7),
    *,
    max_new_tokens: int = 3,
    future: Promise | None = None,
    deadline: float = math.inf,
    stop_at: float = math.inf,
    priority: Priority = Priority.NORMAL,
    caller: str = "",
    call: int = 0,
    submitted_at: float = 0.0,
    on_tokens: Callable[[list[int]], None] | None = None,
    is_embedded: bool = False,
    **options: Any,
) -> Sequence:
    """A sequence to generate from, or to embed."""
    search = make_search(
        GenerateOptions(max_new_tokens=max_new_tokens, **options),
        decoder_start_token_id=START,
        eos_token_id=EOS,
    )
    return Sequence(
        source_tokens=tuple(source),
        future=FakePromise() if future is None else future,
        search=None if is_embedded else search,
        on_tokens=on_tokens,
        deadline=deadline,
        stop_at=stop_at,
        priority=priority,
        caller=caller,
        call=call,
        submitted_at=submitted_at,
    )


def make_submission(**settings: Any) -> tuple[Sequence, asyncio.Future[Any]]:
    """A sequence with a real future of the running event loop."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    return make_sequence(future=future, **settings), future


def make_generation_record(**changes: Any) -> GenerationRecord:
    """How to decode with a small model that nobody opens."""
    values: dict[str, Any] = {
        "encode_graph": "encode.onnx",
        "decode_graph": "decode.onnx",
        "target_tokenizer": "tokenizer.json",
        "target_vocabulary_size": 32,
        "max_target_length": 50,
        "num_layers": 2,
        "num_heads": 4,
        "head_size": 8,
        "decoder_start_token_id": START,
        "eos_token_id": EOS,
        "pad_token_id": 0,
        "max_new_tokens": 20,
        "num_beams": 1,
        "length_penalty": 1.0,
    }
    return GenerationRecord(**{**values, **changes})
