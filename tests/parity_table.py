"""Collects how closely served models match ``transformers``, and writes the page of families.

``make parity`` runs the parity tests of all families and heads, then this module.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from seqserve.manifest import Manifest
from seqserve.task_record import Task

_HEADS = {
    Task.EMBED: "embeddings",
    Task.CLASSIFY: "sequence classes",
    Task.CLASSIFY_TOKENS: "token classes",
    Task.RERANK: "cross-encoder",
    Task.FILL_MASK: "masked LM",
}

_PAGE = """\
# Supported families, and how closely they match transformers

`make parity` makes this page: it exports a small random checkpoint of every family in its original
layout, with a tokenizer trained on a little text, and compares what is served with transformers
{transformers}, in fp32 on CPU. Every export repeats such comparisons on the checkpoint itself, and
writes nothing unless they pass.

## Encoder-decoder models

Greedy and beam search over the real server on 64 ragged sources with {num_options} sets of options
(length penalties 0.6, 1 and 2, early stopping or not, four best hypotheses, no repeated trigrams,
minimum length, repetition penalty, forced first token): the token ids of all hypotheses are equal
to those of `generate`, which runs without padding.

| family | hypotheses | scores: largest difference | states and logits against transformers | \
logits, torch against ONNX | alone against a batch of 64 |
|---|---|---|---|---|---|
{generation}

mBART-50 is `mbart50`, NLLB-200 is `nllb`, Flan-T5 is `t5-v1.1`. A multilingual Marian model takes
its target language, an NLLB, M2M100, mBART or PLBart model both languages, with every input.

## Encoder models

Outputs of ragged batches of 64 in ONNX against transformers on each source alone; the largest
difference of any number.

| family | {heads} |
|---|{lines}|
{encoders}
"""


class ParityTable:
    """One row for each family and kind of model."""

    def __init__(self) -> None:
        self._generation: dict[str, dict[str, Any]] = {}
        self._encoders: dict[str, dict[str, float]] = {}

    def add_generation(
        self, family: str, manifest: Manifest, score_differences: Sequence[float]
    ) -> None:
        """Adds an encoder-decoder family whose hypotheses were all equal.

        Args:
            family: Its name.
            manifest: Of the exported model.
            score_differences: Of each hypothesis.
        """
        self._generation[family] = {
            "hypotheses": len(score_differences),
            "score": max(score_differences),
            "mapping": _find(manifest, "mapping"),
            "logits": _find(manifest, "decode: torch"),
            "is_batch_invariant": manifest.is_batch_invariant,
        }

    def add_encoder(self, family: str, task: Task, difference: float) -> None:
        """Adds the largest difference of an encoder with a head."""
        self._encoders.setdefault(family, {})[task] = difference

    def write(self, path: Path) -> None:
        """Writes all rows as JSON."""
        content = {
            "generation": dict(sorted(self._generation.items())),
            "encoders": dict(sorted(self._encoders.items())),
        }
        path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _find(manifest: Manifest, beginning: str) -> float:
    """The largest difference of the check that begins like this."""
    (found,) = [one for one in manifest.verification if one.check.startswith(beginning)]
    return found.max_abs_difference


def make_page(content: dict[str, Any], *, transformers: str, num_options: int) -> str:
    """The page, from what :meth:`ParityTable.write` wrote."""
    generation = [
        f"| `{family}` | {row['hypotheses']} | {row['score']:.0e} | {row['mapping']:.0e} "
        f"| {row['logits']:.0e} | {'no bit differs' if row['is_batch_invariant'] else 'differs'} |"
        for family, row in content["generation"].items()
    ]
    encoders = [
        f"| `{family}` | " + " | ".join(f"{row[task]:.0e}" for task in _HEADS) + " |"
        for family, row in content["encoders"].items()
    ]
    return _PAGE.format(
        transformers=transformers,
        num_options=num_options,
        generation="\n".join(generation),
        heads=" | ".join(_HEADS.values()),
        lines="|".join("---" for _ in _HEADS),
        encoders="\n".join(encoders),
    )


if __name__ == "__main__":
    import importlib.metadata

    table, page = map(Path, sys.argv[1:])
    page.write_text(
        make_page(
            json.loads(table.read_text(encoding="utf-8")),
            transformers=importlib.metadata.version("transformers"),
            num_options=6,
        ),
        encoding="utf-8",
    )
