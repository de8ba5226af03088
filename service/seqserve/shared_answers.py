"""Answers that inputs of one model share: those that are kept, and those that are being computed.

What holds:

* Whoever shares an answer is told what a computation of its own would have come to, but for the
  timing, and only if it wants to share and is of the same group.
* Every sequence is answered exactly once, as without sharing. Nobody meets the end of another: not
  its error, its deadline, its time limit, nor that its caller left.
* A sequence waits for a computation that has begun, or that stands before it. Else it takes a turn
  of its own, and whichever is done first answers both.
* Streams and inputs with a time limit do not wait for others: they want what there is so far. They
  take what is kept, and what they end with is kept if it is whole.
"""

import asyncio
import dataclasses
import math
import secrets
from collections.abc import Iterable
from functools import partial

from seqserve.computation import Computation
from seqserve.errors import UnavailableError
from seqserve.lanes import Lanes
from seqserve.model_metrics import ModelMetrics
from seqserve.response_cache import ResponseCache
from seqserve.response_key import key_of
from seqserve.sequence import Answer, Generation, Sequence

_OWNER_BYTES = 8
_SECRET_BYTES = 32


class SharedAnswers:
    """Stands before the lanes of one model. Event loop only."""

    def __init__(
        self,
        lanes: Lanes,
        metrics: ModelMetrics,
        cache: ResponseCache | None,
        *,
        deduplicates: bool,
    ) -> None:
        """Keeps nothing yet.

        Args:
            lanes: What computes.
            metrics: Of the model.
            cache: Where answers are kept, beside those of other models; None: nowhere.
            deduplicates: Whether inputs wait for computations of others.
        """
        self._lanes = lanes
        self._metrics = metrics
        self._cache = cache
        self._deduplicates = deduplicates
        # A version that is loaded again has other secrets, so that no answer outlives its model.
        self._owner = secrets.token_bytes(_OWNER_BYTES)
        self._secret = secrets.token_bytes(_SECRET_BYTES)
        self._computations: dict[bytes, list[Computation]] = {}

    def submit(self, sequences: Iterable[Sequence]) -> None:
        """Answers what is kept, has wait who can, and hands the rest of a call to the lanes.

        Raises:
            UnavailableError: The lanes are closed or dead; what was handed over before is still
                answered.
        """
        call = list(sequences)
        handed_over: list[Sequence] = []
        begun: list[Computation] = []
        for sequence in call:
            key = key_of(sequence, self._secret)
            if key is None:
                handed_over.append(sequence)
            elif not self._find(key, sequence):
                if not self._is_for_all(sequence):
                    self._keep_when_done(key, sequence)
                    handed_over.append(sequence)
                elif not self._join(key, sequence, len(call)):
                    begun.append(self._begin(key, sequence, len(call)))
                    handed_over.append(begun[-1].sequence)
        try:
            self._lanes.submit(handed_over)
        except UnavailableError:
            for computation in begun:
                computation.abandon()
            raise

    def close(self) -> None:
        """Forgets what is kept, and keeps nothing more; those who wait are still answered."""
        if self._cache is not None:
            self._cache.drop(self._owner)
            self._cache = None

    def _find(self, key: bytes, sequence: Sequence) -> bool:
        """Answers a sequence with what is kept, if that is anything."""
        if self._cache is None or sequence.sharing is None or not sequence.sharing.takes:
            return False
        answer = self._cache.find(self._owner + key)
        self._metrics.observe_lookup(is_hit=answer is not None)
        if answer is None:
            return False
        assert isinstance(sequence.future, asyncio.Future)
        sequence.is_cached = True
        sequence.started_at = sequence.encoded_at = sequence.finished_at = sequence.submitted_at
        if isinstance(answer, Generation):
            sequence.first_token_at = sequence.submitted_at
            tokens = answer.hypotheses[0].tokens
            if sequence.on_tokens is not None and tokens:
                sequence.on_tokens(list(tokens))
        sequence.future.set_result(dataclasses.replace(answer, timing=sequence.timing()))
        return True

    def _is_for_all(self, sequence: Sequence) -> bool:
        """Whether a sequence wants no more than a whole answer at once, its own or another's."""
        return (
            self._deduplicates
            and sequence.sharing is not None
            and sequence.sharing.takes
            and sequence.on_tokens is None
            and sequence.stop_at == math.inf
        )

    def _join(self, key: bytes, sequence: Sequence, call_size: int) -> bool:
        """Has a sequence wait for a computation, if there is one that will do."""
        for computation in self._computations.get(key, ()):
            if computation.can_take(sequence, call_size, self._lanes):
                computation.take(sequence)
                return True
        return False

    def _begin(self, key: bytes, sequence: Sequence, call_size: int) -> Computation:
        computation = Computation(sequence, call_size, partial(self._end, key))
        self._computations.setdefault(key, []).append(computation)
        return computation

    def _end(self, key: bytes, ended: Computation) -> None:
        """Tells all who want to know what a computation has come to."""
        others = self._computations.pop(key)
        others.remove(ended)
        if others:
            self._computations[key] = others
        outcome = ended.outcome
        if isinstance(outcome, BaseException):
            for sequence in ended.fail(outcome):
                self._compute_alone(key, sequence)
        elif outcome is not None:
            for computation in (ended, *others):
                self._metrics.observe_shared(computation.answer(outcome, ended.sequence))
            self._keep(key, ended.sequence, outcome)

    def _compute_alone(self, key: bytes, sequence: Sequence) -> None:
        """Hands over a sequence that has waited in vain."""
        assert isinstance(sequence.future, asyncio.Future)
        self._keep_when_done(key, sequence)
        try:
            self._lanes.submit([sequence])
        except UnavailableError as error:
            sequence.future.set_exception(error)

    def _keep_when_done(self, key: bytes, sequence: Sequence) -> None:
        assert isinstance(sequence.future, asyncio.Future)
        if self._cache is not None:
            sequence.future.add_done_callback(partial(self._keep_result, key, sequence))

    def _keep_result(self, key: bytes, sequence: Sequence, future: asyncio.Future[Answer]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._keep(key, sequence, future.result())

    def _keep(self, key: bytes, sequence: Sequence, answer: Answer) -> None:
        """Keeps an answer, unless its time limit cut it short."""
        if self._cache is not None and sequence.finished_at < sequence.stop_at:
            self._cache.keep(self._owner + key, answer)
