"""Runs one batch through onnxruntime: arrays in, arrays out, and no array leaves.

Three engines, one for each kind of model. Each is used by one worker thread only.
"""

from typing import Any, Protocol

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seqserve.batch import Batch, EmbeddingWithStates, Outcome, Phase
from seqserve.cache import KeyValueCache
from seqserve.cache_budget import CacheBudget
from seqserve.choice import choose
from seqserve.errors import EngineError, NonFiniteError
from seqserve.generation_graphs import GenerationGraphs
from seqserve.interruption import run_interruptibly
from seqserve.manifest import Manifest
from seqserve.search_state import SearchState
from seqserve.session import BoundStep, input_dtype, pad
from seqserve.shared_sessions import SharedSessions
from seqserve.sparse_vector import SparseVector


class Engine(Protocol):
    """What a worker runs batches with."""

    first_phase: Phase
    """The phase a waiting sequence enters: "encode" or "embed"."""

    def run(self, batch: Batch, options: onnxruntime.RunOptions | None = None) -> list[Outcome]:
        """Runs one batch.

        Args:
            batch: The batch.
            options: What an encode or embed batch can be ended with.

        Returns:
            One outcome for each sequence of the batch.

        Raises:
            PassInterruptedError: It was ended; rows and cache are as the batch says.
            Exception: Whatever failed; it concerns all sequences of the batch.
        """

    def release(self) -> None:
        """Gives back memory that only running sequences need; nothing runs."""


class GenerationEngine:
    """Runs the graphs of an encoder-decoder model, with a cache of its own between them."""

    first_phase: Phase = "encode"

    def __init__(self, graphs: GenerationGraphs, manifest: Manifest, *, max_rows: int) -> None:
        record = manifest.generation
        assert record is not None
        self._max_rows = max_rows
        self._num_layers = record.num_layers
        self._graphs = graphs
        self._cache = KeyValueCache(
            num_layers=record.num_layers,
            num_heads=record.num_heads,
            head_size=record.head_size,
            dtype=input_dtype(graphs.decode, graphs.past_names[0][0]),
        )
        self._input_ids = np.zeros(max_rows, np.int64)
        self._past_lengths = np.zeros(max_rows, np.int32)
        self._source_lengths = np.ones(max_rows, np.int32)
        self._logits = np.zeros((max_rows, record.target_vocabulary_size), np.float32)
        self._steps: dict[int, BoundStep] = {}
        self._steps_generation = self._cache.generation

    def run(self, batch: Batch, options: onnxruntime.RunOptions | None = None) -> list[Outcome]:
        """Runs an encode or a decode batch."""
        self._cache.copy_rows(batch.copies)
        if batch.resize is not None:
            self._steps.clear()  # they hold the arrays that are replaced
            self._cache.resize(batch.resize)
        if batch.phase == "encode":
            return self._run_encode(batch, options)
        return self._run_decode(batch)

    def budget(self, max_bytes: int) -> CacheBudget:
        """What the rows of its cache cost."""
        return self._cache.budget(max_bytes, self._max_rows)

    def release(self) -> None:
        """Gives back the memory of the cache."""
        self._steps.clear()
        self._cache.release()

    def _run_encode(self, batch: Batch, options: onnxruntime.RunOptions | None) -> list[Outcome]:
        input_ids, lengths = pad([sequence.source_tokens for sequence in batch.sequences])
        layers = run_interruptibly(
            self._graphs.encode,
            self._graphs.present_names[1],
            {"input_ids": input_ids, "source_lengths": lengths},
            options,
        )
        for index, sequence in enumerate(batch.sequences):
            self._cache.write_source(sequence.rows, layers, index, sequence.source_length)
        return [None] * len(batch.sequences)

    def _run_decode(self, batch: Batch) -> list[Outcome]:
        searches: list[tuple[SearchState, list[int]]] = []
        for sequence in batch.sequences:
            search = sequence.search
            assert search is not None
            searches.append((search, sequence.rows))
            self._input_ids[sequence.rows] = search.next_inputs()
            self._past_lengths[sequence.rows] = search.target_length
            self._source_lengths[sequence.rows] = sequence.source_length
        num_rows = batch.num_rows
        longest = max(search.target_length for search, _ in searches) + 1
        if longest > self._cache.extent.target_length:
            raise EngineError(
                f"{longest} target positions exceed the {self._cache.extent.target_length} granted"
            )
        self._bound_step(num_rows).run()
        return list(choose(searches, self._logits[:num_rows], self._graphs.rank))

    def _bound_step(self, num_rows: int) -> BoundStep:
        """The decode graph bound to the first rows of the cache."""
        if self._steps_generation != self._cache.generation:
            self._steps.clear()
            self._steps_generation = self._cache.generation
        if num_rows not in self._steps:
            inputs: dict[str, NDArray[Any]] = {
                "input_ids": self._input_ids[:num_rows],
                "past_lengths": self._past_lengths[:num_rows],
                "source_lengths": self._source_lengths[:num_rows],
            }
            outputs: dict[str, NDArray[Any]] = {"logits": self._logits[:num_rows]}
            for side, tensors in enumerate((self._cache.target, self._cache.source)):
                for position in range(2 * self._num_layers):
                    rows = tensors[position][:num_rows]
                    inputs[self._graphs.past_names[side][position]] = rows
                    # Past and present are one buffer: the operator then writes in place.
                    outputs[self._graphs.present_names[side][position]] = rows
            self._steps[num_rows] = BoundStep(self._graphs.decode, inputs, outputs)
        return self._steps[num_rows]


class EmbeddingEngine:
    """The graph of a sentence-embedding model."""

    first_phase: Phase = "embed"

    def __init__(self, sessions: SharedSessions, manifest: Manifest, lane: int = 0) -> None:
        record = manifest.embedding
        assert record is not None
        self._is_sparse = record.sparse is not None
        sessions.check_names(
            ["input_ids", "source_lengths"], ["sentence_embedding", "last_hidden_state"]
        )
        self._sessions = sessions
        self._lane = lane

    def run(self, batch: Batch, options: onnxruntime.RunOptions | None = None) -> list[Outcome]:
        """Embeds a batch; the vectors are as the graph returns them, without zeros if sparse."""
        input_ids, lengths = pad([sequence.source_tokens for sequence in batch.sequences])
        names = ["sentence_embedding"]
        if any(sequence.returns_states for sequence in batch.sequences):
            names.append("last_hidden_state")
        vectors, *states = self._sessions.run(
            self._lane, names, {"input_ids": input_ids, "source_lengths": lengths}, options
        )
        outcomes: list[Outcome] = []
        for index, sequence in enumerate(batch.sequences):
            # Copies, or one slow reader would keep the whole batch.
            row = vectors[index]
            vector = SparseVector.from_dense(row) if self._is_sparse else row.copy()
            outcome: Outcome = vector
            is_finite = np.isfinite(row).all()
            if sequence.returns_states:
                rows = states[0][index, : sequence.source_length].copy()  # [S, M]
                outcome = EmbeddingWithStates(vector, rows)
                is_finite &= np.isfinite(rows).all()
            if not is_finite:
                outcome = NonFiniteError("the model returned a vector that is not finite")
            outcomes.append(outcome)
        return outcomes

    def release(self) -> None:
        """Nothing outlives a batch."""


class PredictionEngine:
    """The graph of an encoder with a head: it classifies, reranks or fills masks."""

    first_phase: Phase = "embed"

    def __init__(self, sessions: SharedSessions, manifest: Manifest, lane: int = 0) -> None:
        record = manifest.prediction
        assert record is not None
        self._has_token_types = record.has_token_types
        self._has_token_logits = manifest.token_classification is not None
        self._mask_token = None
        if manifest.mask_filling is not None:
            self._mask_token = manifest.mask_filling.mask_token_id
        inputs = ["input_ids", "source_lengths"]
        if self._has_token_types:
            inputs.append("token_type_ids")
        sessions.check_names(inputs, ["logits"])
        self._sessions = sessions
        self._lane = lane

    def run(self, batch: Batch, options: onnxruntime.RunOptions | None = None) -> list[Outcome]:
        """Predicts for a batch; the logits are as the graph returns them, without padding."""
        sources = [sequence.source_tokens for sequence in batch.sequences]
        input_ids, lengths = pad(sources)
        feeds: dict[str, NDArray[Any]] = {"input_ids": input_ids, "source_lengths": lengths}
        if self._has_token_types:
            types = [
                sequence.token_types or (0,) * sequence.source_length
                for sequence in batch.sequences
            ]
            feeds["token_type_ids"], _ = pad(types)
        (logits,) = self._sessions.run(self._lane, ["logits"], feeds, options)
        # Copies, as of vectors.
        return [
            rows.copy()
            if np.isfinite(rows).all()
            else NonFiniteError("the model returned no finite logits")
            for rows in self._split(logits, sources)
        ]

    def release(self) -> None:
        """Nothing outlives a batch."""

    def _split(
        self, logits: NDArray[np.float32], sources: list[tuple[int, ...]]
    ) -> list[NDArray[np.float32]]:
        """The logits of each sequence: [V] of a text, [S, V] of tokens, [N, V] of N masks."""
        if self._mask_token is not None:
            counts = [source.count(self._mask_token) for source in sources]
            return np.split(logits, np.cumsum(counts)[:-1])
        if self._has_token_logits:
            return [rows[: len(source)] for rows, source in zip(logits, sources, strict=True)]
        return list(logits)
