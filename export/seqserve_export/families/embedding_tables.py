"""The embedding tables of an encoder-decoder checkpoint, which may be stored once or four times.

Source embedding, target embedding and head can be one table. A checkpoint then holds it under any
of the names, or under all of them.

Source: ``PreTrainedModel.tie_weights`` of ``transformers`` 5: tables that should be one, and are
there with different values, stay separate.
"""

import dataclasses
from collections.abc import Mapping

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingTables:
    """The tables under our names, and which of them are one."""

    weights: dict[str, Tensor]
    """A table that is shared is there once, under its first name."""
    is_shared: bool
    """Source and target have one embedding."""
    has_tied_head: bool
    """The head is the target embedding."""


def pop_stored(renamed: dict[str, Tensor]) -> dict[str, Tensor]:
    """Takes the tables out of renamed weights."""
    names = ("shared", "source", "target", "head")
    return {name: renamed.pop(name) for name in names if name in renamed}


def place_tables(
    stored: Mapping[str, Tensor], *, can_share: bool, can_tie: bool
) -> EmbeddingTables:
    """Finds out which table is what.

    Args:
        stored: What the checkpoint holds of "shared", "source", "target" and "head".
        can_share: Whether the configuration has one embedding for source and target.
        can_tie: Whether the configuration has the target embedding for a head.
    """
    candidates = {
        "source": ["source", "shared", "target", "head"] if can_share else ["source"],
        "target": ["target", "shared", "source", "head"] if can_share else ["target", "head"],
        "head": ["head", "target", "shared", "source"] if can_tie else ["head"],
    }
    if can_tie and not can_share:
        candidates["head"] = ["head", "target"]
    found = {
        side: next((stored[name] for name in names if name in stored), None)
        for side, names in candidates.items()
    }
    source, target, head = found["source"], found["target"], found["head"]
    is_shared = can_share and _is_same(source, target)
    has_tied_head = can_tie and _is_same(target, head)
    weights = {
        "source_embedding.token.weight": source,
        "target_embedding.token.weight": None if is_shared else target,
        "head.weight": None if has_tied_head else head,
    }
    return EmbeddingTables(
        weights={name: table for name, table in weights.items() if table is not None},
        is_shared=is_shared,
        has_tied_head=has_tied_head,
    )


def _is_same(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first is second or torch.equal(first, second)
