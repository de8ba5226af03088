"""Runs the graphs of an encoder-decoder model on a device: only token ids come back.

What :mod:`seqserve.engine` does on the processor. Caches, what the encoder returns, and logits stay
in the memory of the device; logits are copied as a whole in steps in which some sequence needs
them. Steps are run over 1, 2, 4, 8, ... rows, so that kernels see few shapes. The rows beyond those
that are alive are free rows of the cache: they compute something that nobody looks at.
"""

from typing import Any, NamedTuple

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seqserve.batch import Batch, Outcome, Phase
from seqserve.best_choice import choose_best
from seqserve.cache_budget import CacheBudget
from seqserve.choice import choose
from seqserve.device_cache import DeviceCache, place
from seqserve.errors import EngineError
from seqserve.generation_graphs import DeviceGraphs, GenerationGraphs
from seqserve.interruption import run_bound_interruptibly
from seqserve.manifest import Manifest
from seqserve.search_state import SearchState
from seqserve.session import input_dtype, pad

_SOURCE_GRAIN = 32
"""Encoder batches are padded to a multiple of it."""


class DeviceEngine:
    """Runs an encoder-decoder model with caches in the memory of a device."""

    first_phase: Phase = "encode"

    def __init__(
        self,
        graphs: GenerationGraphs,
        device_graphs: DeviceGraphs,
        manifest: Manifest,
        *,
        max_rows: int,
        device_type: str = "cuda",
    ) -> None:
        """Allocates what a step reads and writes but the caches.

        Args:
            graphs: Opened for the device.
            device_graphs: Opened for it, too.
            manifest: Of the model.
            max_rows: Most rows of a step.
            device_type: What onnxruntime calls the device; tests have "cpu" stand in for it.
        """
        record = manifest.generation
        assert record is not None
        self._graphs = graphs
        self._best_tokens_graph = device_graphs.best_tokens
        self._max_rows = max_rows
        self._max_source_length = manifest.max_source_length
        self._device_type = device_type
        self._cache_dtype = input_dtype(graphs.decode, graphs.past_names[0][0])
        self._cache = DeviceCache(
            device_graphs.move_rows,
            num_layers=record.num_layers,
            num_heads=record.num_heads,
            head_size=record.head_size,
            dtype=self._cache_dtype,
            device_type=device_type,
        )
        self._inputs: dict[str, NDArray[Any]] = {
            "input_ids": np.zeros(max_rows, np.int64),
            "past_lengths": np.zeros(max_rows, np.int32),
            "source_lengths": np.ones(max_rows, np.int32),
        }
        # A binding copies what is on the host when it is bound, not when it is run: so inputs have
        # their own memory on the device, which each step fills.
        self._device_inputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(array.copy(), device_type, 0)
            for name, array in self._inputs.items()
        }
        self._logits = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
            [max_rows, record.target_vocabulary_size], np.float32, device_type, 0
        )
        self._best_tokens = np.zeros(max_rows, np.int64)
        self._steps: dict[int, _Step] = {}
        self._steps_generation = self._cache.generation

    def run(self, batch: Batch, options: onnxruntime.RunOptions | None = None) -> list[Outcome]:
        """Runs an encode or a decode batch."""
        self._cache.copy_rows(batch.copies)
        if batch.resize is not None:
            self._steps.clear()  # they hold the addresses of what is replaced
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
        longest = max(sequence.source_length for sequence in batch.sequences)
        padded_length = min(-(-longest // _SOURCE_GRAIN) * _SOURCE_GRAIN, self._max_source_length)
        input_ids, lengths = pad(
            [sequence.source_tokens for sequence in batch.sequences], padded_length
        )
        binding = self._graphs.encode.io_binding()
        binding.bind_cpu_input("input_ids", input_ids)
        binding.bind_cpu_input("source_lengths", lengths)
        for name in self._graphs.present_names[1]:
            binding.bind_output(name, self._device_type)
        run_bound_interruptibly(self._graphs.encode, binding, options)
        self._cache.write_sources(
            [sequence.rows for sequence in batch.sequences], binding.get_outputs()
        )
        return [None] * len(batch.sequences)

    def _run_decode(self, batch: Batch) -> list[Outcome]:
        searches: list[tuple[SearchState, list[int]]] = []
        input_ids, past_lengths, source_lengths = self._inputs.values()
        input_ids.fill(0)
        past_lengths.fill(0)
        source_lengths.fill(1)
        for sequence in batch.sequences:
            search = sequence.search
            assert search is not None
            searches.append((search, sequence.rows))
            input_ids[sequence.rows] = search.next_inputs()
            past_lengths[sequence.rows] = search.target_length
            source_lengths[sequence.rows] = sequence.source_length
        longest = max(search.target_length for search, _ in searches) + 1
        if longest > self._cache.extent.target_length:
            raise EngineError(
                f"{longest} target positions exceed the {self._cache.extent.target_length} granted"
            )
        for name, array in self._inputs.items():
            self._device_inputs[name].update_inplace(array)
        step = self._bound_step(round_up_rows(batch.num_rows, self._cache.extent.num_rows))
        self._graphs.decode.run_with_iobinding(step.decode)
        self._best_tokens_graph.run_with_iobinding(step.best_tokens)
        outcomes = choose_best(searches, self._best_tokens[: batch.num_rows].tolist())
        if outcomes is None:
            logits = step.decode.get_outputs()[0].numpy()
            outcomes = choose(searches, logits[: batch.num_rows], self._graphs.rank)
        return list(outcomes)

    def _bound_step(self, num_rows: int) -> "_Step":
        """The graphs of a step bound to the first rows of the cache and of the logits."""
        if self._steps_generation != self._cache.generation:
            self._steps.clear()
            self._steps_generation = self._cache.generation
        if num_rows not in self._steps:
            logits = place(self._logits, np.float32, num_rows)
            decode = self._graphs.decode.io_binding()
            for name, value in self._device_inputs.items():
                decode.bind_input(name, *place(value, self._inputs[name].dtype, num_rows))
            decode.bind_output("logits", *logits)
            for side, tensors in enumerate((self._cache.target, self._cache.source)):
                for position, tensor in enumerate(tensors):
                    rows = place(tensor, self._cache_dtype, num_rows)
                    decode.bind_input(self._graphs.past_names[side][position], *rows)
                    # Past and present are one buffer: the operator then writes in place.
                    decode.bind_output(self._graphs.present_names[side][position], *rows)
            best_tokens = self._best_tokens_graph.io_binding()
            best_tokens.bind_input("logits", *logits)
            found = self._best_tokens
            best_tokens.bind_output(
                "best_tokens", "cpu", 0, found.dtype, [num_rows], found.ctypes.data
            )
            self._steps[num_rows] = _Step(decode, best_tokens)
        return self._steps[num_rows]


class _Step(NamedTuple):
    """The bindings of a step over so many rows."""

    decode: onnxruntime.IOBinding
    """Logits are its first output."""
    best_tokens: onnxruntime.IOBinding


def round_up_rows(num_rows: int, max_rows: int) -> int:
    """The next power of two, or as many rows as there are if that is less."""
    return min(1 << (num_rows - 1).bit_length(), max_rows)
