"""Runs exported graphs with onnxruntime, to compare them with torch.

They are opened as the server opens them, so that the same kernels are compared. But this is not its
engine: it is written to be read, and fills whatever a graph must not look at with values that would
show: tokens that mean something behind the end of a source, and NaN behind the end of a cache.

Shapes: B rows, S source length, P cache capacity, V vocabulary, H heads, D head size.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from seqserve.session import available_cpus, cache_names, open_session

Floats = NDArray[np.float32]


class SourceRunner:
    """Runs a graph over whole sources: encode, embed or predict."""

    def __init__(self, path: Path, padding_token: int) -> None:
        self._session = open_session(path, num_threads=available_cpus())
        self._padding_token = padding_token
        self._output_names = [output.name for output in self._session.get_outputs()]

    def run(
        self,
        sources: Sequence[Sequence[int]],
        token_types: Sequence[Sequence[int]] | None = None,
    ) -> dict[str, Floats]:
        """Runs one batch, padded to its longest source; outputs by name."""
        lengths = np.array([len(source) for source in sources], np.int32)
        tokens = np.full((len(sources), lengths.max()), self._padding_token, np.int64)
        for row, source in enumerate(sources):
            tokens[row, : len(source)] = source
        feeds = {"input_ids": tokens, "source_lengths": lengths}
        if token_types is not None:
            types = np.ones_like(tokens)
            for row, values in enumerate(token_types):
                types[row, : len(values)] = values
            feeds["token_type_ids"] = types
        outputs = self._session.run(self._output_names, feeds)
        return dict(zip(self._output_names, outputs, strict=True))


class DecodeRunner:
    """Runs the decode graph with past and present bound to one buffer, as the server does."""

    def __init__(self, path: Path, num_layers: int) -> None:
        self._session = open_session(path, num_threads=available_cpus(), is_decoding=True)
        self._num_layers = num_layers

    def decode(
        self,
        tokens: Sequence[int],
        past_lengths: Sequence[int],
        source_lengths: Sequence[int],
        past: list[Floats],
        source: list[Floats],
    ) -> Floats:
        """Decodes one token of each row, and writes its keys and values into ``past``.

        Args:
            tokens: [B].
            past_lengths: [B].
            source_lengths: [B].
            past: Keys and values of every layer, [B, H, P, D] each, contiguous.
            source: Projected encoder states of every layer, [B, H, S, D] each, contiguous.

        Returns:
            Logits [B, V].
        """
        binding = self._session.io_binding()
        binding.bind_cpu_input("input_ids", np.array(tokens, np.int64))
        binding.bind_cpu_input("past_lengths", np.array(past_lengths, np.int32))
        binding.bind_cpu_input("source_lengths", np.array(source_lengths, np.int32))
        for side, caches in (("decoder", past), ("encoder", source)):
            past_names = cache_names("past_key_values", side, self._num_layers)
            present_names = cache_names("present", side, self._num_layers)
            for past_name, present_name, cache in zip(
                past_names, present_names, caches, strict=True
            ):
                assert cache.flags.c_contiguous
                place = ("cpu", 0, cache.dtype, cache.shape, cache.ctypes.data)
                binding.bind_input(past_name, *place)
                binding.bind_output(present_name, *place)
        binding.bind_output("logits", "cpu")
        self._session.run_with_iobinding(binding)
        logits: Floats = binding.get_outputs()[-1].numpy()
        return logits


def make_cache(shape: tuple[int, int, int, int], like: Floats) -> Floats:
    """An empty cache [B, H, P, D]: nothing in it is valid, and reading it would show.

    Args:
        shape: B, H, P and D.
        like: An output of the encode graph, which has the number format of caches.
    """
    invalid = 127 if like.dtype == np.int8 else np.nan
    return np.full(shape, invalid, like.dtype)


class OnnxTargets:
    """The logits that follow targets of one source, for :mod:`seqserve_export.reference_search`.

    Keeps the caches of the last call. Each new target must be one of the last ones with one more
    token, or a start token alone.
    """

    def __init__(self, runner: DecodeRunner, source: list[Floats], empty_cache: Floats) -> None:
        """Starts with no target.

        Args:
            runner: The decode graph.
            source: Projected encoder states of every layer, [1, H, S, D] each.
            empty_cache: [1, H, P, D], with room for the longest target.
        """
        self._runner = runner
        self._source = source
        self._targets: list[list[int]] = [[]]
        self._past = [empty_cache.copy() for _ in source]

    def __call__(self, targets: list[list[int]]) -> Tensor:
        """Returns the logits [N, V] that follow each of N targets."""
        origins = [self._targets.index(target[:-1]) for target in targets]
        self._past = [cache[origins] for cache in self._past]
        num_targets = len(targets)
        source = [np.repeat(states, num_targets, axis=0) for states in self._source]
        logits = self._runner.decode(
            [target[-1] for target in targets],
            [len(target) - 1 for target in targets],
            [source[0].shape[2]] * num_targets,
            self._past,
            source,
        )
        self._targets = [list(target) for target in targets]
        return torch.from_numpy(logits)
