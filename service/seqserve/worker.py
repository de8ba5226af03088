"""The one thread of a model: inbox -> scheduler -> engine -> answers. Contains every failure.

What holds:

* Every submitted sequence is answered exactly once: with a result, with an error, or its future was
  cancelled by the caller.
* A fault in ``engine.run`` becomes the error of that batch's sequences, one in a sequence's search
  or in its ``on_tokens`` the error of that sequence, and the loop goes on. A fault anywhere else
  fails everything outstanding, and the worker reports itself dead.
* The scheduler and the engine are touched only by this thread, futures only by the event loop.
"""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable

import structlog

from seqserve.cache_budget import NOTHING, CacheBudget
from seqserve.engine import Engine
from seqserve.errors import EngineError, UnavailableError
from seqserve.intake import SchedulerLimits
from seqserve.model_metrics import ModelMetrics
from seqserve.pace import Pace
from seqserve.scheduler import Event, Scheduler
from seqserve.sequence import Sequence

_log = structlog.get_logger(__name__)
_IDLE_SECONDS = 10.0
"""After which the memory of the cache is given back."""


class Worker:
    """Runs the sequences of one model, submitted from one event loop."""

    def __init__(
        self,
        engine: Engine,
        limits: SchedulerLimits,
        metrics: ModelMetrics,
        *,
        name: str,
        lane: int = 0,
        budget: CacheBudget | None = None,
        clock: Callable[[], float] = time.monotonic,
        idle_seconds: float = _IDLE_SECONDS,
        max_failed_steps: int = 0,
    ) -> None:
        self._engine = engine
        self._scheduler = Scheduler(engine.first_phase, limits, budget)
        self._budget = budget
        self._metrics = metrics
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._max_failed_steps = max_failed_steps
        self._num_failed_steps = 0
        """In a row."""
        self._pace = Pace()
        self._decoded_at: float | None = None
        """When the last decode step ended, if its sequences run on."""
        self._cache_observed_at = -math.inf
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._submission = threading.Lock()
        self._is_closed = False
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_death: Callable[[], None] = _nothing
        self._name = name
        self._lane = lane
        self._thread = threading.Thread(target=self._run, name=f"worker-{name}-{lane}", daemon=True)

    def start(
        self, loop: asyncio.AbstractEventLoop, on_death: Callable[[], None] | None = None
    ) -> None:
        """Starts the thread.

        Args:
            loop: Where futures are resolved.
            on_death: Called on the loop if the worker dies of a fault outside the engine, or if
                ``max_failed_steps`` in a row have failed in it; then the worker goes on.
        """
        self._loop = loop
        self._on_death = on_death or _nothing
        self._thread.start()

    def submit(self, sequences: Iterable[Sequence]) -> None:
        """Hands over sequences; their futures will be answered on the event loop.

        Raises:
            UnavailableError: The worker is closed or dead; nothing was taken.
        """
        with self._submission:
            if self._failure is not None:
                raise UnavailableError("the model's worker was lost; the server must restart")
            if self._is_closed:
                raise UnavailableError("the model is being shut down; try another replica")
            is_first = self._inbox.empty()
            for sequence in sequences:
                if is_first:
                    self._metrics.set_waiting_since(
                        sequence.submitted_at, lane=self._lane, is_taken=False
                    )
                    is_first = False
                self._inbox.put(sequence)

    @property
    def is_alive(self) -> bool:
        """Whether it has not been lost to a fault."""
        return self._failure is None

    def close(self) -> None:
        """Refuses new sequences; those submitted are still answered, then the thread ends."""
        with self._submission:
            if not self._is_closed:
                self._is_closed = True
                self._inbox.put(None)

    async def join(self) -> None:
        """Waits until the thread has ended; call ``close`` first."""
        await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        try:
            while self._receive():
                self._step()
        except BaseException as error:  # a library in Rust that panics raises no Exception
            _log.exception("worker died", model=self._name)
            self._die(error)

    def _receive(self) -> bool:
        """Moves arrivals to the scheduler, waiting for one if idle; False when all is done."""
        scheduler = self._scheduler
        while True:
            is_idle = not scheduler.has_work
            if is_idle:
                self._observe_load()
                if self._is_closed and self._inbox.empty():
                    return False
            # Without a cache there is nothing to give back, so nothing to wake up for.
            is_resting = scheduler.cache_extent == NOTHING
            try:
                sequence = self._inbox.get(is_idle, None if is_resting else self._idle_seconds)
            except queue.Empty:
                self._observe_inbox()
                if not is_idle:
                    return True
                scheduler.rest()
                self._engine.release()
                continue
            if sequence is not None:
                self._add(sequence)

    def _add(self, sequence: Sequence) -> None:
        try:
            self._scheduler.add(sequence)
        except ValueError as error:  # it can never run; the others can
            self._deliver([Event(sequence, answer=EngineError(str(error)))])

    def _step(self) -> None:
        scheduler, metrics = self._scheduler, self._metrics
        now = self._clock()
        self._deliver(scheduler.drop(now, self._pace.estimate(now)))
        for drop in scheduler.drops:
            metrics.observe_drop(drop)
        started_at = self._clock()
        batch = scheduler.next_batch(started_at)
        self._observe_load()
        if batch is None:
            self._decoded_at = None
            return
        if batch.phase == "decode" and self._decoded_at is not None:
            metrics.observe_stall(started_at - self._decoded_at)
        try:
            outcomes = self._engine.run(batch)
        except Exception as error:
            request_ids = list(dict.fromkeys(one.request_id for one in batch.sequences))
            _log.exception(
                "batch failed", model=self._name, phase=batch.phase, request_ids=request_ids
            )
            metrics.observe_failed_step(batch.phase)
            failure = EngineError(f"{type(error).__name__} in phase {batch.phase}")
            self._hand_over(scheduler.fail(batch, failure))
            self._count_failure()
            return
        self._num_failed_steps = 0
        finished_at = self._clock()
        metrics.observe_step(batch, finished_at - started_at)
        self._pace.observe(batch, finished_at - started_at, finished_at)
        self._deliver(scheduler.update(batch, outcomes, finished_at))
        # With rows mixed up, callers would get the tokens of others. It looks only at a layout that
        # is new, which takes 30 microseconds for 64 rows.
        scheduler.check()
        if batch.phase == "decode":
            self._decoded_at = finished_at if scheduler.num_running else None

    def _count_failure(self) -> None:
        """Reports an engine that fails time after time; what is submitted is still tried."""
        self._num_failed_steps += 1
        if self._num_failed_steps == self._max_failed_steps:
            _log.error("engine keeps failing", model=self._name, num_steps=self._num_failed_steps)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._on_death)

    def _observe_inbox(self) -> None:
        """Takes note that nothing waits there, unless something has just come."""
        with self._submission:
            if self._inbox.empty():
                self._metrics.set_waiting_since(math.inf, lane=self._lane, is_taken=False)

    def _observe_load(self) -> None:
        scheduler = self._scheduler
        self._metrics.set_waiting_since(scheduler.oldest_at, lane=self._lane)
        self._metrics.set_load(
            num_waiting=scheduler.num_waiting + self._inbox.qsize(),
            num_running=scheduler.num_running,
            num_live_rows=scheduler.num_live_rows,
            lane=self._lane,
        )
        now = self._clock()
        is_idle = not scheduler.has_work
        # Once a second is enough for gauges, and looking at every row takes a while.
        if self._budget is not None and (is_idle or now - self._cache_observed_at >= 1.0):
            self._cache_observed_at = now
            self._metrics.set_cache(
                reserved=self._budget.extent_bytes(scheduler.cache_extent),
                used=sum(map(self._budget.extent_bytes, scheduler.valid_extents())),
                lane=self._lane,
            )

    def _deliver(self, events: list[Event]) -> None:
        """Hands events over; the faults of single sequences are logged here, and only here."""
        for event in events:
            if isinstance(event.answer, EngineError):
                _log.error(
                    "sequence failed",
                    model=self._name,
                    request_id=event.sequence.request_id,
                    error=str(event.answer),
                    exc_info=event.answer.__cause__,
                )
        self._hand_over(events)

    def _hand_over(self, events: list[Event]) -> None:
        if events:
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._resolve, events)

    def _resolve(self, events: list[Event]) -> None:
        """Answers futures; runs on the event loop, where alone they may be touched."""
        for event in events:
            sequence, future = event.sequence, event.sequence.future
            assert isinstance(future, asyncio.Future)
            answer = event.answer
            if event.tokens and sequence.on_tokens is not None and not future.done():
                try:
                    sequence.on_tokens(event.tokens)
                except BaseException as error:  # the events behind it are of other callers
                    _log.exception(
                        "stream failed", model=self._name, request_id=sequence.request_id
                    )
                    answer = EngineError(f"{type(error).__name__} in on_tokens")
            if future.done():  # the caller has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            elif answer is not None:
                future.set_result(answer)

    def _die(self, error: BaseException) -> None:
        with self._submission:
            self._failure = error
            self._is_closed = True
        loss = UnavailableError("the model's worker was lost; the server must restart")
        events = self._scheduler.fail_all(loss)
        while not self._inbox.empty():
            sequence = self._inbox.get()
            if sequence is not None:
                events.append(Event(sequence, answer=loss))
        self._deliver(events)
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._on_death)
        try:
            self._observe_inbox()
            self._observe_load()
        except Exception:  # it may be what the worker died of
            _log.exception("load unknown", model=self._name)


def _nothing() -> None:
    """Nobody asked to be told."""
