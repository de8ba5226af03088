"""The one thread of a model: inbox -> scheduler -> engine -> answers. Contains every failure.

What holds:

* Every submitted sequence is answered exactly once: with a result, with an error, or its future was
  cancelled by the caller.
* A fault in ``engine.run`` becomes the error of that batch's sequences, one in a sequence's search
  or in its ``on_tokens`` the error of that sequence, and the loop goes on. A fault anywhere else
  fails everything outstanding, and the worker reports itself dead.
* A pass that nobody waits for any more is ended, and costs nobody else anything.
* The scheduler and the engine are touched only by this thread, futures only by the event loop.
"""

import asyncio
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable

import structlog

from seqserve.batch import Batch, Outcome
from seqserve.cache_budget import NOTHING, CacheBudget
from seqserve.delivery import Delivery
from seqserve.drop import find_drops
from seqserve.engine import Engine
from seqserve.errors import EngineError, PassInterruptedError, UnavailableError
from seqserve.event import Event
from seqserve.intake import SchedulerLimits
from seqserve.interruption import Interruption
from seqserve.lane_load import LaneLoad
from seqserve.model_metrics import ModelMetrics
from seqserve.pace import Pace
from seqserve.scheduler import Scheduler
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
        self._metrics = metrics
        self._clock = clock
        self._idle_seconds = idle_seconds
        self._max_failed_steps = max_failed_steps
        self._num_failed_steps = 0
        """In a row."""
        self._pace = Pace()
        self._decoded_at: float | None = None
        """When the last decode step ended, if its sequences run on."""
        self._load = LaneLoad(metrics, lane, budget, clock)
        self._interruption = Interruption()
        self._inbox: queue.SimpleQueue[Sequence | None] = queue.SimpleQueue()
        self._submission = threading.Lock()
        self._is_closed = False
        self._failure: BaseException | None = None
        self._delivery = Delivery(name)
        self._on_death: Callable[[], None] = _nothing
        self._name = name
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
        self._delivery.loop = loop
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
                    self._load.observe_arrival(sequence.submitted_at)
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
            self._die(error)
            _log.error("worker died", model=self._name, exc_info=error)

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
            self._delivery.deliver([Event(sequence, answer=EngineError(str(error)))])
        except BaseException:
            self._inbox.put(sequence)  # where the end of the worker finds it
            raise

    def _step(self) -> None:
        scheduler, metrics = self._scheduler, self._metrics
        now = self._clock()
        self._delivery.deliver(scheduler.drop(now, self._pace.estimate(now)))
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
            outcomes = self._run_batch(batch)
        except PassInterruptedError as error:
            self._give_up(batch, error)
            return
        except Exception as error:
            request_ids = list(dict.fromkeys(one.request_id for one in batch.sequences))
            _log.exception(
                "batch failed", model=self._name, phase=batch.phase, request_ids=request_ids
            )
            metrics.observe_failed_step(batch.phase)
            failure = EngineError(f"{type(error).__name__} in phase {batch.phase}")
            self._delivery.hand_over(scheduler.fail(batch, failure))
            self._count_failure()
            return
        self._num_failed_steps = 0
        finished_at = self._clock()
        metrics.observe_step(batch, finished_at - started_at)
        self._pace.observe(batch, finished_at - started_at, finished_at)
        self._delivery.deliver(scheduler.update(batch, outcomes, finished_at))
        # With rows mixed up, callers would get the tokens of others. It looks only at a layout that
        # is new, which takes 30 microseconds for 64 rows.
        scheduler.check()
        if batch.phase == "decode":
            self._decoded_at = finished_at if scheduler.num_running else None

    def _run_batch(self, batch: Batch) -> list[Outcome]:
        """Has a batch computed; not a decode step, which is over soon, until nobody waits."""
        if batch.phase == "decode":
            return self._engine.run(batch)
        options = self._interruption.begin(batch.sequences)
        try:
            return self._engine.run(batch, options)
        finally:
            self._interruption.end()

    def look_for_abandonment(self) -> None:
        """Ends what is being computed if nobody waits for it; called on the event loop."""
        self._interruption.look()

    def _give_up(self, batch: Batch, error: PassInterruptedError) -> None:
        """Takes out the sequences of a pass that was ended; those beside them go on."""
        now = self._clock()
        for drop in find_drops(batch.sequences, {}, batch.sequences, now):
            self._metrics.observe_drop(drop)
        self._delivery.deliver(self._scheduler.update(batch, [error] * len(batch.sequences), now))
        self._decoded_at = None

    def _count_failure(self) -> None:
        """Reports an engine that fails time after time; what is submitted is still tried."""
        self._num_failed_steps += 1
        if self._num_failed_steps == self._max_failed_steps:
            _log.error("engine keeps failing", model=self._name, num_steps=self._num_failed_steps)
            self._delivery.call(self._on_death)

    def _observe_inbox(self) -> None:
        """Takes note that nothing waits there, unless something has just come."""
        with self._submission:
            if self._inbox.empty():
                self._load.observe_arrival(math.inf)

    def _observe_load(self) -> None:
        self._load.observe(self._scheduler, self._inbox.qsize())

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
        self._delivery.deliver(events)
        self._delivery.call(self._on_death)
        try:
            self._observe_inbox()
            self._observe_load()
        except Exception:  # it may be what the worker died of
            _log.exception("load unknown", model=self._name)


def _nothing() -> None:
    """Nobody asked to be told."""
