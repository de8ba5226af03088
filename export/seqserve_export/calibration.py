"""What goes through the linear layers of a model on samples, to choose their precision by.

The samples are sources and the targets the model itself writes to them, so that every layer sees
what it will see in service of targets as long.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from seqserve_export.encoder_model import EncoderModel
from seqserve_export.source import GenerationSource
from seqserve_export.verification import SEED, choose_effort, make_row, torch_reference

_MAX_ROWS = 512
"""Positions kept of each layer's inputs, drawn from all."""
_MAX_TARGET_LENGTH = 64
"""Positions decoded of each target at most: what stands far behind is not seen."""


class Calibration:
    """Inputs and outputs of linear layers, by the layers' names."""

    def __init__(self) -> None:
        self._inputs: dict[str, Tensor] = {}
        self._num_seen: dict[str, int] = {}
        self._max_inputs: dict[str, Tensor] = {}
        self._max_outputs: dict[str, Tensor] = {}
        self._square_sums: dict[str, Tensor] = {}
        self._generator = np.random.default_rng(SEED)

    def inputs(self, name: str) -> Tensor:
        """Inputs of a layer, [N, K] with at most some hundred rows."""
        return self._inputs[name][: self._num_seen[name]]

    def max_inputs(self, name: str) -> Tensor:
        """Largest magnitude of each input of a layer, [K], of all rows it has seen."""
        return self._max_inputs[name]

    def max_output(self, name: str) -> float:
        """Largest magnitude a layer put out."""
        return float(self.max_outputs(name).max())

    def max_outputs(self, name: str) -> Tensor:
        """Largest magnitude of each output of a layer, [N]."""
        return self._max_outputs[name]

    def mean_square_outputs(self, name: str) -> Tensor:
        """Mean of the squares of each output of a layer, [N]."""
        return self._square_sums[name] / self._num_seen[name]

    def observe(self, name: str, inputs: Tensor, outputs: Tensor) -> None:
        """Remembers what went through a layer."""
        rows = inputs.detach().flatten(0, -2)
        if name not in self._inputs:
            self._inputs[name] = rows.new_empty(_MAX_ROWS, rows.shape[1])
        num_seen = self._num_seen.get(name, 0)
        self._num_seen[name] = num_seen + len(rows)
        # Every row is as likely to be kept as any other.
        # Source: Vitter 1985, "Random sampling with a reservoir", algorithm R.
        places = np.arange(num_seen, num_seen + len(rows))
        drawn = self._generator.integers(0, places + 1)
        for row, place in enumerate(np.where(places < _MAX_ROWS, places, drawn)):
            if place < _MAX_ROWS:
                self._inputs[name][place] = rows[row]
        squares = outputs.detach().flatten(0, -2).square().sum(dim=0)
        self._square_sums[name] = self._square_sums.get(name, torch.zeros_like(squares)) + squares
        for magnitudes, states in ((self._max_inputs, inputs), (self._max_outputs, outputs)):
            largest = states.detach().flatten(0, -2).abs().amax(dim=0)
            magnitudes[name] = torch.maximum(magnitudes.get(name, largest), largest)


def calibrate(source: GenerationSource, sources: Sequence[list[int]]) -> Calibration:
    """Runs a model on sources and on what it writes to them.

    Args:
        source: The model in fp32.
        sources: Tokens of real texts.
    """
    with _observing(source.model) as calibration:
        for tokens in sources:
            _run(source, tokens)
    return calibration


def calibrate_encoder(
    model: EncoderModel, sources: Sequence[tuple[list[int], list[int] | None]]
) -> Calibration:
    """Runs an encoder in fp32 on sources.

    Args:
        model: The encoder.
        sources: Tokens of real texts, and their types; None means type 0 everywhere.
    """
    with _observing(model) as calibration:
        for tokens, types in sources:
            model(*make_row(tokens), None if types is None else torch.tensor([types]))
    return calibration


@contextlib.contextmanager
def _observing(model: nn.Module) -> Iterator[Calibration]:
    calibration = Calibration()
    handles = [
        module.register_forward_hook(_make_hook(calibration, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        with torch_reference(choose_effort(model)):
            yield calibration
    finally:
        for handle in handles:
            handle.remove()


def _make_hook(calibration: Calibration, name: str) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple[Any, ...], outputs: Tensor) -> None:
        calibration.observe(name, inputs[0], outputs)

    return hook


def _run(source: GenerationSource, tokens: list[int]) -> None:
    """Decodes greedily, one position a step, which is all that hooks need to see."""
    model, generation = source.model, source.generation
    source_tokens, source_lengths = make_row(tokens)
    projected = model.decoder.project_source(model.encode(source_tokens, source_lengths))
    config = model.config
    length = min(_MAX_TARGET_LENGTH, config.max_target_length)
    empty = torch.zeros(1, config.num_heads, length, config.head_size)
    past = [(empty, empty) for _ in range(config.num_decoder_layers)]
    token = generation.decoder_start_token_id
    for step in range(length):
        logits, past, _ = model.decode(
            torch.tensor([token]),
            torch.tensor([step], dtype=torch.int32),
            projected,
            source_lengths,
            past,
        )
        token = int(logits[0].argmax())
        if step == 0 and generation.forced_bos_token_id is not None:
            token = generation.forced_bos_token_id
        if token == generation.eos_token_id:
            break
