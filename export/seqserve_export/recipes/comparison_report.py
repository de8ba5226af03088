"""Writes the report of a comparison: tables, pictures and what follows from them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from seqserve_export.recipes.attention_panels import Panel, write_panels
from seqserve_export.recipes.comparison_findings import (
    Variants,
    errors_by_length,
    list_findings,
    name_spans,
    ranges_by_length,
)
from seqserve_export.recipes.comparison_tables import (
    format_checks,
    format_costs,
    format_errors,
    format_table,
)
from seqserve_export.recipes.line_chart import Line, LineChart, write_line_chart
from seqserve_export.variants.catalogue import CATALOGUE

REPORT_FILE = "variants.md"
RESULTS_FILE = "variants.json"
_MEMORY_PICTURE, _SCORES_PICTURE = "variants-memory.svg", "variants-scores.svg"
_ATTENTION_PICTURE = "variants-attention.svg"
_MEMORY_NAMES = ("recurrent", "recurrent-attention", "transformer", "concatenation")

_REPORT = """\
# The ways to attend, side by side

Written by `python -m seqserve_export.recipes.compare`; figures and machine are in
[{results}]({results}). The variants are parts in the places of those of the one Transformer
(`seqserve_export.variants`), trained by the recipe of the shipped model with the same data,
optimiser and number of steps, with parameters within a tenth of each other. Each was exported,
verified and served like any other model, by the same engine.

**The task.** Phrases of one to three words of CMUdict, letters and gaps in, phonemes out; no word
of the test was trained on. Test phrases have up to four words, more than any that was trained on.
{num_steps} steps of {batch_size} phrases, AdamW, learning rate {learning_rate} with warm-up and
linear decay, averaged weights; seeds {seeds} for the main variants, the first for the others.
These are small models after a small budget: they tell how the variants differ, not how good each
could be.

**The machine.** {processor}, {cpus} CPUs, shared with other programs (load average {load}); torch
{torch}, onnxruntime {onnxruntime}.

## Errors by the length of the source

Wrong phonemes as a share, greedy, {num_questions} phrases. Columns are letters, gaps included.
Where there are several seeds, the mean.

{errors}

{pictures}
{image}
## What they cost

Training is the processor time of one thread for all steps. A step is forward and backward over
{batch_size} examples on one thread, the shortest of {num_rounds} rounds. Serving is over gRPC from
another process, greedy, on {cpus} CPUs: 256 sources in one call, and one source a call; medians of
{num_rounds} rounds in which all variants take turns. The cache has so many bytes for each token of
the source and as many for each of the target.

{costs}

Served answers are those of torch for the number of test sources given. `Attend` shows the kinds
that a variant has; the difference is the largest to the weights in torch. Of the concatenation,
rows of `decoder_self` and `cross` sum to 1 together. A single head that serves several heads of
values is told as each of these.

{checks}

![Cross-attention of each variant]({attention})

What the steps that write the sounds of one word look at, as `Attend` tells it: the mean over layers
and heads, the source from left to right, the target from top to bottom.

## What the figures say

{findings}

## What they do not

* Nothing of how the variants compare when they are large, or trained to the end: after this budget
  all of them still learn, and some may only be slower to begin.
* Variants with one seed are compared with the spread of others, which is an estimate.
* Times are of this engine. It was made for dot products with one operator that reads the cache in
  place: other scores are computed beside it, the concatenation copies source and target together
  in every step, and the recurrent network has small products. Another engine may order them
  otherwise.
* Without attention the engine keeps the summary for every place of the source, which one place
  would do for; its cache is that much larger than it need be.
"""

_PICTURES = f"""\
![Error by length, with and without attention]({_MEMORY_PICTURE})

![Error by length of the score functions]({_SCORES_PICTURE})
"""

_IMAGE = """
**Images.** {title}: {num_questions} rendered words that were not trained on, of up to eight
letters, a column of pixels a token; {num_steps} steps. {error:.1%} of the letters are wrong,
{words:.1%} of the words. By letters of the word:

{table}

It reads with its own vocabulary and on its own task, so that its errors and times stand beside
those of the others, not against them.
"""


def read_figures(folder: Path) -> dict[str, Any]:
    """Reads the figures of a report.

    Raises:
        FileNotFoundError: There are none.
    """
    found: dict[str, Any] = json.loads((folder / RESULTS_FILE).read_text(encoding="utf-8"))
    return found


def write_report(record: Mapping[str, Any], folder: Path) -> None:
    """Writes the report, its pictures and its figures."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2)
    (folder / RESULTS_FILE).write_text(text + "\n", encoding="utf-8")
    variants: Variants = record["variants"]
    texts = [name for name in variants if not CATALOGUE[name].is_image]
    if texts:
        names = [name for name in _MEMORY_NAMES if name in texts] or texts
        chart = _make_chart(variants, names, "Does a summary forget, and does attention not?")
        write_line_chart(chart, folder / _MEMORY_PICTURE)
        names = [name for name in texts if name not in _MEMORY_NAMES[:2]] or texts
        chart = _make_chart(variants, names, "Score functions and heads")
        write_line_chart(chart, folder / _SCORES_PICTURE)
    panels = [
        Panel(title=name, **variant["shown"])
        for name, variant in variants.items()
        if variant["shown"]
    ]
    write_panels(panels, folder / _ATTENTION_PICTURE)
    (folder / REPORT_FILE).write_text(format_report(record), encoding="utf-8")


def format_report(record: Mapping[str, Any]) -> str:
    """Formats the report as Markdown."""
    variants: Variants = record["variants"]
    machine, budget = record["machine"], record["budget"]
    texts = [name for name in variants if not CATALOGUE[name].is_image]
    images = [name for name in variants if CATALOGUE[name].is_image]
    return _REPORT.format(
        results=RESULTS_FILE,
        pictures=_PICTURES if texts else "",
        attention=_ATTENTION_PICTURE,
        num_steps=budget["num_steps"],
        batch_size=budget["batch_size"],
        learning_rate=budget["learning_rate"],
        seeds=", ".join(map(str, record["seeds"])),
        processor=machine["processor"],
        cpus=machine["cpus"],
        load=machine["load_average"],
        torch=machine["packages"]["torch"],
        onnxruntime=machine["packages"]["onnxruntime"],
        num_questions=record["num_questions"],
        num_rounds=record["extent"]["num_rounds"],
        errors=format_errors(variants, texts) if texts else "None of the variants reads phrases.",
        image="".join(_format_image(variants, name) for name in images),
        costs=format_costs(variants),
        checks=format_checks(variants),
        findings="\n".join(f"* {sentence}" for sentence in list_findings(variants)),
    )


def _make_chart(variants: Variants, names: Sequence[str], title: str) -> LineChart:
    return LineChart(
        title=title,
        places=name_spans(variants, names),
        x_label="letters of the source",
        y_label="wrong phonemes",
        lines=[
            Line(name, errors_by_length(variants[name]), ranges_by_length(variants[name]))
            for name in names
        ],
    )


def _format_image(variants: Variants, name: str) -> str:
    (run, *_) = variants[name]["runs"]
    rates = [f"{rate:.1%}" for rate in errors_by_length(variants[name])]
    return _IMAGE.format(
        title=CATALOGUE[name].title,
        num_questions=sum(span["num_questions"] for span in run["by_length"]),
        num_steps=run["num_steps"],
        error=run["token_error_rate"],
        words=run["target_error_rate"],
        table=format_table(name_spans(variants, [name]), [rates]),
    )
