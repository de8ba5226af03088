"""Looks inside a model: the weights of attention of one source and one target.

They come from a graph of its own, opened when somebody first asks. Passes run one at a time, each
on one thread, so that what is being served keeps the others; callers share the turns.

Shapes: S source length, T target length, N chosen heads of a layer.
"""

import asyncio
import dataclasses
import math
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import structlog
from numpy.typing import NDArray

from seqserve.attention_kind import AttentionKind, head_names, weight_names
from seqserve.errors import (
    ModelFolderError,
    ModelRefusedError,
    NonFiniteError,
    PassInterruptedError,
)
from seqserve.explanation_record import ExplanationRecord
from seqserve.graph_file import external_locations
from seqserve.interruption import make_options, run_interruptibly
from seqserve.manifest import Manifest, check_file
from seqserve.pass_turns import PassTurns
from seqserve.sequence import Priority
from seqserve.session import check_names, open_session

_log = structlog.get_logger(__name__)
_NO_HEADS = np.zeros(0, np.int64)
_REHEARSAL_LENGTH = 4

Heads = Mapping[int, tuple[int, ...]]
"""The chosen heads of each chosen layer."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What to look at, and which heads."""

    source_tokens: tuple[int, ...]
    token_types: tuple[int, ...] = ()
    """Of each source token, where it is that of a pair of texts; empty means type 0."""
    decoder_tokens: tuple[int, ...] = ()
    """The start token, then all target tokens but the last; empty for encoders."""
    heads: Mapping[AttentionKind, Heads]
    priority: Priority = Priority.NORMAL
    caller: str = ""
    """Who asks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """What was found."""

    weights: dict[AttentionKind, list[NDArray[np.float32]]]
    """Of each chosen layer, in the order of the question: [N, S, S], [N, T, T] or [N, T, S]."""
    seconds: float
    """From the question to here."""


class Explainer:
    """The explain graph of one model."""

    def __init__(self, folder: Path, manifest: Manifest, ageing_seconds: float) -> None:
        """Takes note of where it is; nothing is opened.

        Args:
            folder: The model's.
            manifest: The model's.
            ageing_seconds: After how long a question that waits rises by one class.
        """
        assert manifest.explanation is not None
        self.record: ExplanationRecord = manifest.explanation
        self._folder = folder
        self._manifest = manifest
        self._session: onnxruntime.InferenceSession | None = None
        self._turns = PassTurns(ageing_seconds)

    @property
    def is_open(self) -> bool:
        """Whether somebody has asked."""
        return self._session is not None

    def count_waiting(self) -> int:
        """Questions whose turn has not come."""
        return len(self._turns)

    async def explain(self, question: Question) -> Explanation:
        """Computes weights, when its turn has come; ends when its caller leaves. Event loop only.

        Raises:
            ModelRefusedError: The graph cannot be opened any more.
            NonFiniteError: The model has come to NaN or infinity.
        """
        asked_at = time.monotonic()
        tokens = question.source_tokens + question.decoder_tokens
        await self._turns.take(tokens, question.priority, question.caller)
        options = make_options()
        work = asyncio.get_running_loop().run_in_executor(
            None, partial(self._answer, question, options)
        )
        # A pass that nobody waits for has its turn until it has ended.
        work.add_done_callback(lambda _: self._turns.give_back())
        try:
            weights = await asyncio.shield(work)
        except asyncio.CancelledError:
            options.terminate = True
            work.add_done_callback(_hear)
            raise
        return Explanation(weights, time.monotonic() - asked_at)

    def rehearse(self) -> None:
        """Opens the graph and runs a small input, one head of each layer.

        Raises:
            ModelFolderError: It cannot be opened or computed, or what comes out is not finite.
        """
        source_length = min(_REHEARSAL_LENGTH, self._manifest.max_source_length)
        question = Question(
            source_tokens=tuple(range(source_length)),
            decoder_tokens=(0,) if self._manifest.generation is not None else (),
            heads={
                kind: dict.fromkeys(range(num_layers), (0,))
                for kind, num_layers in self.record.layers.items()
            },
        )
        try:
            self._run(self._open(), question, make_options())
        except ModelFolderError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base class
            first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
            path = self._folder / self.record.graph
            raise ModelFolderError(f"{path} cannot be computed: {first_line}") from error

    def _answer(
        self, question: Question, options: onnxruntime.RunOptions
    ) -> dict[AttentionKind, list[NDArray[np.float32]]]:
        """Opens the graph if it is the first question. In a thread; one at a time."""
        if self._session is None:
            label = f"{self._manifest.name}/{self._manifest.version}"
            began_at = time.monotonic()
            try:
                session = self._open()
            except ModelFolderError as error:
                _log.error("explain graph refused", model=label, reason=str(error))
                raise ModelRefusedError(
                    f"the explain graph of model {label} cannot be opened, though it could when "
                    "the model was loaded: its files have changed since; load the version again"
                ) from error
            self._session = session
            seconds = round(time.monotonic() - began_at, 3)
            _log.info("explain graph opened", model=label, seconds=seconds)
        return self._run(self._session, question, options)

    def _open(self) -> onnxruntime.InferenceSession:
        """Opens the graph, provided that it and its weights are those of the manifest still."""
        path = self._folder / self.record.graph
        files = self._manifest.files
        check_file(path, files[path.name])
        for location in external_locations(path):
            check_file(self._folder / location, files[location])
        session = open_session(path, num_threads=1)
        inputs = ["input_ids", "source_lengths"]
        if self.record.has_token_types:
            inputs.append("token_type_ids")
        if self._manifest.generation is not None:
            inputs.append("decoder_input_ids")
        outputs = []
        for kind, num_layers in self.record.layers.items():
            inputs += head_names(kind, num_layers)
            outputs += weight_names(kind, num_layers)
        check_names(session, path, inputs, outputs)
        return session

    def _run(
        self,
        session: onnxruntime.InferenceSession,
        question: Question,
        options: onnxruntime.RunOptions,
    ) -> dict[AttentionKind, list[NDArray[np.float32]]]:
        names = {
            kind: [weight_names(kind, self.record.layers[kind])[layer] for layer in heads]
            for kind, heads in question.heads.items()
        }
        flat = [name for of_kind in names.values() for name in of_kind]
        arrays = run_interruptibly(session, flat, self._feeds(question), options)
        found = dict(zip(flat, arrays, strict=True))
        if not all(math.isfinite(float(array.sum())) for array in arrays):
            raise NonFiniteError("the model returned weights of attention that are not finite")
        return {kind: [found[name][0] for name in of_kind] for kind, of_kind in names.items()}

    def _feeds(self, question: Question) -> dict[str, NDArray[Any]]:
        feeds: dict[str, NDArray[Any]] = {
            "input_ids": np.array([question.source_tokens], np.int64),
            "source_lengths": np.array([len(question.source_tokens)], np.int32),
        }
        if self.record.has_token_types:
            types = question.token_types or (0,) * len(question.source_tokens)
            feeds["token_type_ids"] = np.array([types], np.int64)
        if question.decoder_tokens:
            feeds["decoder_input_ids"] = np.array([question.decoder_tokens], np.int64)
        for kind, num_layers in self.record.layers.items():
            chosen = question.heads.get(kind, {})
            for layer, name in enumerate(head_names(kind, num_layers)):
                feeds[name] = np.array(chosen[layer], np.int64) if layer in chosen else _NO_HEADS
        return feeds


def _hear(work: asyncio.Future[Any]) -> None:
    """Takes note of how a pass ended that nobody waits for."""
    error = work.exception()
    if error is not None and not isinstance(error, PassInterruptedError):
        _log.error("pass that nobody waits for failed", exc_info=error)
