"""Renames the tensors of a checkpoint to ours, by tables of patterns."""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from seqserve_export.errors import CheckpointError

Renames = Sequence[tuple[str, str]]
"""Patterns of whole beginnings of names, and what replaces them; the first that matches counts."""


def rename_weights(
    weights: Mapping[str, Tensor], renames: Renames, *, unneeded: str
) -> dict[str, Tensor]:
    """Renames tensors.

    Args:
        weights: As read.
        renames: Beginnings of names, and ours.
        unneeded: Pattern of whole names to leave out: heads and tables that nothing needs.

    Returns:
        The tensors by their new names; a name that no pattern fits stays, to be reported as
        unexpected when weights are assigned.

    Raises:
        CheckpointError: Two tensors get one name, and they differ.
    """
    is_unneeded = re.compile(unneeded).fullmatch
    renamed: dict[str, Tensor] = {}
    origins: dict[str, str] = {}
    for name, tensor in weights.items():
        if is_unneeded(name):
            continue
        new_name = rename(name, renames)
        if new_name in renamed and not torch.equal(renamed[new_name], tensor):
            raise CheckpointError(
                f"{origins[new_name]} and {name} should be one tensor, but they differ"
            )
        renamed[new_name], origins[new_name] = tensor, name
    return renamed


def rename(name: str, renames: Renames) -> str:
    """Replaces the beginning of a name; one that no pattern fits stays."""
    for pattern, replacement in renames:
        renamed, num_replaced = re.subn(f"^{pattern}", replacement, name)
        if num_replaced:
            return renamed
    return name
