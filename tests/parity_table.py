"""Collects how closely served models match their reference, for a page that lists every family."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqserve.manifest import Manifest


class ParityTable:
    """One row for each family and kind of model."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Any]] = {}

    def add_generation(
        self, family: str, manifest: Manifest, score_differences: Sequence[float]
    ) -> None:
        """Adds an encoder-decoder family whose hypotheses were all equal.

        Args:
            family: Its name.
            manifest: Of the exported model.
            score_differences: Of each hypothesis.
        """
        self._rows[f"generate/{family}"] = {
            "hypotheses": len(score_differences),
            "largest score difference": max(score_differences),
            **_describe(manifest),
        }

    def write(self, path: Path) -> None:
        """Writes the rows, over those of the same families that an earlier run wrote."""
        rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        rows |= self._rows
        text = json.dumps(dict(sorted(rows.items())), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def _describe(manifest: Manifest) -> dict[str, Any]:
    """What export itself found."""
    return {
        "is_batch_invariant": manifest.is_batch_invariant,
        "checks": {record.check: record.max_abs_difference for record in manifest.verification},
    }
