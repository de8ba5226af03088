"""What the ONNX graphs of a folder compute, to compare our model with.

Where a checkpoint is a graph, the graph is the original: whichever of its weights was taken for
what, our model must come to the same, on single rows without padding and in fp32. The session is
closed before our model is made.

Shapes: S source length, T target length, M model width, V vocabulary.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from seqserve_export.errors import CheckpointError
from seqserve_export.generation_reference import ReferenceCase
from seqserve_export.onnx_folder import LOGITS, STATES, TOKEN_TYPES, OnnxFiles

_CACHE_PREFIX = "past_key_values."
_CACHE_SWITCH = "use_cache_branch"


@dataclasses.dataclass(frozen=True)
class GraphOutputs:
    """What a graph returned, by the names ``transformers`` has for it."""

    last_hidden_state: Tensor
    """Empty if the graph has none."""
    logits: Tensor
    """Empty if the graph has none."""


class OnnxModel:
    """An ONNX graph that is called like a model of ``transformers``."""

    def __init__(self, path: Path, output: str) -> None:
        """Opens the graph.

        Args:
            path: The graph.
            output: :data:`STATES` or :data:`LOGITS`; the only one that is computed.

        Raises:
            CheckpointError: onnxruntime cannot run it, or it has no such output.
        """
        self._path = path
        self._output = output
        try:
            self._session = onnxruntime.InferenceSession(
                path, _make_options(), providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            # The library raises what it likes for a malformed file.
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise CheckpointError(f"onnxruntime cannot load {path}: {reason}") from error
        self._inputs = {value.name: value for value in self._session.get_inputs()}
        names = [value.name for value in self._session.get_outputs()]
        if output not in names:
            raise CheckpointError(f"{path} has the outputs {', '.join(names)}, but not {output}")

    @property
    def has_token_types(self) -> bool:
        """Whether the graph is told types of tokens."""
        return TOKEN_TYPES in self._inputs

    def __call__(self, **feeds: Tensor) -> GraphOutputs:
        """Runs one row.

        Raises:
            CheckpointError: The graph needs other inputs, or fails.
        """
        arrays = {name: feed.numpy() for name, feed in feeds.items() if name in self._inputs}
        for name, value in self._inputs.items():
            if name.startswith(_CACHE_PREFIX):
                # Of a merged decoder: not looked at, but it must be there.
                shape = [size if isinstance(size, int) else 1 for size in value.shape]
                arrays[name] = np.zeros(shape, np.float32)
            elif name == _CACHE_SWITCH:
                arrays[name] = np.array([False])
        if missing := sorted(self._inputs.keys() - arrays.keys()):
            raise CheckpointError(
                f"{self._path} needs the inputs {', '.join(missing)}, which the models of its "
                "family do not have"
            )
        try:
            (result,) = self._session.run([self._output], arrays)
        except Exception as error:
            # The library raises what it likes for a malformed graph.
            raise CheckpointError(f"onnxruntime cannot run {self._path}: {error}") from error
        values, empty = torch.from_numpy(result), torch.empty(0)
        if self._output == LOGITS:
            return GraphOutputs(last_hidden_state=empty, logits=values)
        return GraphOutputs(last_hidden_state=values, logits=empty)


def run_graphs(
    files: OnnxFiles, sources: Sequence[list[int]], targets: Sequence[list[int]]
) -> list[ReferenceCase]:
    """Runs the graphs of an encoder-decoder model over whole targets.

    Raises:
        CheckpointError: onnxruntime cannot run them, or they do not generate text.
    """
    assert files.decoder is not None
    encoder, decoder = OnnxModel(files.encoder, STATES), OnnxModel(files.decoder, LOGITS)
    return [_run(encoder, decoder, *pair) for pair in zip(sources, targets, strict=True)]


def _run(
    encoder: OnnxModel, decoder: OnnxModel, source: list[int], target: list[int]
) -> ReferenceCase:
    tokens = torch.tensor([source])
    mask = torch.ones_like(tokens)
    states = encoder(input_ids=tokens, attention_mask=mask).last_hidden_state  # [1, S, M]
    feeds: dict[str, Any] = {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    logits = decoder(input_ids=torch.tensor([target]), **feeds).logits  # [1, T, V]
    return ReferenceCase(
        source=source,
        target=target,
        encoder_states=states[0].numpy(),
        logits=logits[0].numpy(),
    )


def _make_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors
    # The arena would keep what the largest batch took until the end.
    options.enable_cpu_mem_arena = False
    # Idle threads must sleep: torch works in turns with onnxruntime here.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options
