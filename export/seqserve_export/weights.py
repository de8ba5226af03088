"""Reads the weights of a checkpoint folder and assigns them to a module.

Weights are SafeTensors. A pickle is a program rather than data: it is read only on request, and
then by a loader that knows tensors and containers and refuses everything else.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from seqserve_export.errors import CheckpointError, UnsupportedError

WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_PICKLE_PATTERNS = ("pytorch_model.bin", "*.pt", "*.pth")


def read_weights(folder: Path, *, is_pickle_allowed: bool = False) -> dict[str, Tensor]:
    """Reads all tensors of a checkpoint folder, from one file or from the parts of an index.

    Raises:
        UnsupportedError: There are only pickled weights, and they are not allowed.
        CheckpointError: There are no weights, or they cannot be read.
    """
    pickle = check_weights(folder, is_pickle_allowed=is_pickle_allowed)
    if pickle is not None:
        return _read_pickle(pickle)
    if (folder / WEIGHTS_FILE).is_file():
        return read_safetensors(folder / WEIGHTS_FILE)
    return _read_parts(folder)


def check_weights(folder: Path, *, is_pickle_allowed: bool) -> Path | None:
    """Checks that a folder has weights that may be read.

    Returns:
        The pickle they are in, or None where they are SafeTensors.

    Raises:
        UnsupportedError: There are only pickled weights, and they are not allowed.
        CheckpointError: There are no weights.
    """
    if _has_safetensors(folder):
        return None
    pickles = _find_pickles(folder)
    if not pickles:
        raise CheckpointError(f"{folder} holds no weights; expected {WEIGHTS_FILE}")
    if not is_pickle_allowed:
        raise UnsupportedError(
            f"{pickles[0]} is a pickle, which can run code when it is read; convert it to "
            f"{WEIGHTS_FILE}, or allow it with --allow-pickle if you trust where it comes from"
        )
    return pickles[0]


def has_weights(folder: Path, *, is_pickle_allowed: bool) -> bool:
    """Whether a folder has weights that may be read, other than in ONNX graphs."""
    return _has_safetensors(folder) or (is_pickle_allowed and bool(_find_pickles(folder)))


def measure_weights(folder: Path) -> int:
    """Bytes of the weights of a folder and of its module folders; of ONNX graphs if it has none."""
    patterns = ("*.safetensors", "*.bin", "*.pt", "*.pth")
    return _measure(folder, patterns) or _measure(folder, ("*.onnx", "*.onnx_data"))


def _measure(folder: Path, patterns: Sequence[str]) -> int:
    return sum(path.stat().st_size for pattern in patterns for path in folder.rglob(pattern))


def _has_safetensors(folder: Path) -> bool:
    return (folder / WEIGHTS_FILE).is_file() or (folder / _INDEX_FILE).is_file()


def _find_pickles(folder: Path) -> list[Path]:
    return [path for pattern in _PICKLE_PATTERNS for path in sorted(folder.glob(pattern))]


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Reads one SafeTensors file.

    Raises:
        CheckpointError: The file is absent or malformed.
    """
    try:
        return load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _read_parts(folder: Path) -> dict[str, Tensor]:
    path = folder / _INDEX_FILE
    try:
        names = sorted(set(json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{path} is not an index of weight files: {error}") from error
    weights: dict[str, Tensor] = {}
    for name in names:
        if Path(name).name != name:
            raise CheckpointError(f"{path} names {name!r}, which is not a file of the folder")
        weights |= read_safetensors(folder / name)
    return weights


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # On malformed bytes the loader fails with whatever it stumbles over.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is not a plain table of tensors: {reason}") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in content.items()
    ):
        raise CheckpointError(f"{path} must hold a table from names to tensors and nothing else")
    return dict(content)


def assign_weights(expected: dict[str, Tensor], weights: dict[str, Tensor], what: str) -> None:
    """Copies weights into the tensors of the same name.

    Args:
        expected: The module's tensors by name; they are written to.
        weights: As read; every one must be expected.
        what: Where the weights come from, to begin the message with.

    Raises:
        CheckpointError: Lists every tensor that is missing, unexpected or of another shape.
    """
    check_fit(expected, weights, what)
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(weights[name])


def check_fit(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], what: str) -> None:
    """Checks that weights are the expected ones, no more and no less.

    Raises:
        CheckpointError: Lists every tensor that is missing, unexpected or of another shape.
    """
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [
        f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(f"{what} does not fit its configuration: " + "; ".join(problems))
