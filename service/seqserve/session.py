"""onnxruntime sessions: how they are opened, and how a decode step is bound to the cache."""

import contextlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from seqserve.device import Device, check_session, providers_for
from seqserve.errors import ModelFolderError
from seqserve.group_limit import cpu_quota


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs this process may use: the smaller of affinity and cgroup quota, at least 1.

    onnxruntime looks at neither and would start one thread per core of the machine.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = cpu_quota(root)
    return max(1, allowed if quota is None else min(allowed, int(quota)))


_SLOW_FUSIONS = ["SkipLayerNormFusion", "EmbedLayerNormFusion", "BiasGeluFusion"]
"""Optimizations to leave out: on CPU the fused norm takes nine times as long as what it fuses (145
us against 16 us for 64 rows of 512), the fused activation half as long again."""
_SPIN_MICROSECONDS = 50
"""How long a thread that is out of work looks for more before it sleeps. A step has hundreds of
operators with microseconds between them: threads that sleep at once make it a quarter slower, and
threads that spin for longer take the processor from the event loop and the tokenizer."""
_FLASH_VARIABLE = "ORT_GQA_DISABLE_FLASH_ATTENTION"
_opening = threading.Lock()


def open_session(
    path: Path,
    *,
    num_threads: int,
    is_decoding: bool = False,
    keeps_memory: bool = False,
    device: Device = "cpu",
) -> onnxruntime.InferenceSession:
    """Opens a graph for serving.

    Args:
        path: The graph.
        num_threads: Threads to compute with.
        is_decoding: Whether each row has one query, and keys of its own number.
        keeps_memory: Whether what a run took is kept for the next; for many short runs.
        device: Where it is computed.

    Raises:
        ModelFolderError: onnxruntime rejects the file.
        ConfigurationError: The device cannot be used.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # A memory pattern is kept per set of input shapes, and shapes change with every batch.
    options.enable_mem_pattern = False
    is_on_cpu = device == "cpu"
    if is_on_cpu:
        # An arena would keep what the largest batch took, in every model, and saves a long run no
        # time.
        options.enable_cpu_mem_arena = keeps_memory
        options.add_session_config_entry(
            "session.intra_op.spin_duration_us", str(_SPIN_MICROSECONDS)
        )
    # NOTE: session.set_denormal_as_zero stays off. It changes the mode of the pool's threads and of
    # the thread that opens the session, but not of the one that runs it, so that the bits of a
    # result would depend on which thread computed which row.
    try:
        with _flash_attention(is_allowed=not (is_on_cpu and is_decoding)):
            session = onnxruntime.InferenceSession(
                str(path),
                sess_options=options,
                providers=providers_for(device),
                disabled_optimizers=_SLOW_FUSIONS if is_on_cpu else None,
            )
    except Exception as error:  # onnxruntime's exceptions share no public base class
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelFolderError(f"{path} is rejected by onnxruntime: {first_line}") from error
    check_session(session, device)
    return session


@contextlib.contextmanager
def _flash_attention(*, is_allowed: bool) -> Iterator[None]:
    """Chooses the attention kernel of sessions that are opened meanwhile.

    onnxruntime reads a variable when it makes the kernel. Its flash kernel takes ragged rows one
    after the other, each with all threads; without it, rows and heads are shared out at once, which
    halves the time of attention in a decode step. Long sources are what the flash kernel is for.
    """
    with _opening:  # or a session would get the kernel of one that is opened at the same time
        before = os.environ.get(_FLASH_VARIABLE)
        if not is_allowed:
            os.environ[_FLASH_VARIABLE] = "1"
        try:
            yield
        finally:
            if before is None:
                os.environ.pop(_FLASH_VARIABLE, None)
            else:
                os.environ[_FLASH_VARIABLE] = before


def check_names(
    session: onnxruntime.InferenceSession, path: Path, inputs: list[str], outputs: list[str]
) -> None:
    """Checks that a graph has the tensors the engine will bind.

    Raises:
        ModelFolderError: An input or output is missing or unknown; the message lists all.
    """
    problems = []
    for kind, expected, found in (
        ("input", inputs, [node.name for node in session.get_inputs()]),
        ("output", outputs, [node.name for node in session.get_outputs()]),
    ):
        problems += [f"no {kind} {name}" for name in expected if name not in found]
        problems += [f"unknown {kind} {name}" for name in found if name not in expected]
    if problems:
        raise ModelFolderError(
            f"{path} is not the graph the manifest means: " + ", ".join(problems)
        )


def input_dtype(session: onnxruntime.InferenceSession, name: str) -> np.dtype[Any]:
    """The number format of an input."""
    formats = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int8)": np.int8}
    (node,) = (node for node in session.get_inputs() if node.name == name)
    return np.dtype(formats[node.type])


class BoundStep:
    """A session with its inputs and outputs bound to fixed memory.

    Binding costs microseconds per tensor and a decoder has dozens; a step of the same shape binds
    once and then only runs.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        # Arrays and values are kept here: the binding does not keep them alive.
        self._values: list[tuple[NDArray[Any], onnxruntime.OrtValue]] = []
        aliases: dict[tuple[int, tuple[int, ...]], onnxruntime.OrtValue] = {}
        for name, array in inputs.items():
            self._binding.bind_ortvalue_input(name, self._alias(array, aliases))
        for name, array in outputs.items():
            self._binding.bind_ortvalue_output(name, self._alias(array, aliases))

    def _alias(
        self,
        array: NDArray[Any],
        aliases: dict[tuple[int, tuple[int, ...]], onnxruntime.OrtValue],
    ) -> onnxruntime.OrtValue:
        """One OrtValue over the array's own memory; the same for a tensor bound twice."""
        if not array.flags.c_contiguous:
            raise ValueError("only contiguous arrays can be bound without a copy")
        key = (array.ctypes.data, array.shape)
        if key not in aliases:
            aliases[key] = onnxruntime.OrtValue.ortvalue_from_numpy(array)
            self._values.append((array, aliases[key]))
        return aliases[key]

    def run(self) -> None:
        """Computes the outputs in place."""
        self._session.run_with_iobinding(self._binding)


def cache_names(prefix: str, side: str, num_layers: int) -> list[str]:
    """Tensor names of one side's cache, ``side`` being "decoder" or "encoder".

    They are Optimum's: ``past_key_values.0.decoder.key``.
    """
    return [
        f"{prefix}.{layer}.{side}.{part}"
        for layer in range(num_layers)
        for part in ("key", "value")
    ]


def row_names(prefix: str, num_layers: int) -> list[str]:
    """Tensor names of the graph that moves rows, whichever side it works on."""
    return [f"{prefix}.{layer}.{part}" for layer in range(num_layers) for part in ("key", "value")]


def pad(
    rows: list[tuple[int, ...]], min_length: int = 0
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Pads token rows on the right: ids [B, S] and lengths [B]. Padding is never attended to."""
    lengths = np.array([len(row) for row in rows], np.int32)
    ids = np.zeros((len(rows), max(min_length, int(lengths.max()))), np.int64)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
    return ids, lengths
