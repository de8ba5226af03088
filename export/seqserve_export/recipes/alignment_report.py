"""How well the shipped model tells which letter each phoneme came from: a report with numbers.

``python -m seqserve_export.recipes.alignment_report`` writes ``export/reports/alignment.md``. Words
to learn the reference from, to choose heads on, and to score them on have none in common.
"""

import itertools
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import torch
from torch import Tensor

from seqserve_export.alignment_choice import Head, align, choose_alignment
from seqserve_export.explain_graph import ExplainGraph
from seqserve_export.recipes.pronunciation_alignment import (
    AlignmentScore,
    MonotoneAligner,
    Pair,
    attend_to_letters,
    score_alignments,
)
from seqserve_export.recipes.pronunciation_data import Dictionary, read_dictionary, split_words
from seqserve_export.source import GenerationSource
from seqserve_export.source_folder import read_source_folder

_ROOT = Path(__file__).parents[2]
_NUM_TEST, _NUM_VALID = 6000, 2500
"""Words that were not trained on, as in :mod:`seqserve_export.recipes.g2p`."""
_EXAMPLES = {
    "onomatopoeia": "AA N AH M AE T AH P OW IY AH",
    "church": "CH ER CH",
    "through": "TH R UW",
    "xylophone": "Z AY L AH F OW N",
}
"""As the model pronounces them."""
_REPORT = """\
# Which letter each phoneme came from

Made by `python -m seqserve_export.recipes.alignment_report` with Python {python} and torch {torch}.

`return_alignments` takes the mean of some heads of cross-attention. Which ones, export chooses for
every model by what the model itself does (prediction difference): one source token after the other
is replaced, and what a target token loses of its log-probability is how much it came from it. An
alignment is as good as the share that it finds of what can be lost; heads that find at least 95 %
of what the best one finds are chosen. For g2p-en that was measured on the {num_samples} words of
`samples.txt`, {num_tokens} phonemes. It takes no alignment made by people, and none is there.

Here the alignments are held against the obvious one, in which each phoneme comes from one letter
and never from one before the last. It is learned from {num_learned:,} training words. The model
reads {num_scored:,} test words with {num_phonemes:,} phonemes, and is told their phonemes. For
comparison: the set of heads, of all {num_sets}, that is best by the obvious alignment of
{num_chosen:,} validation words.

| heads | which | share found | from another letter | not even beside it | backward |
|---|---|---|---|---|---|
{rows}

"Share found" is the criterion of export, on its words; all else is of the test words. Heads are
layer and head, from 0. The obvious alignment is no truth: of "sh" it takes one letter, by habit.

## Examples

By the chosen heads, with the place of each letter from 0:

| word | phonemes | letters |
|---|---|---|
{examples}

[attention.svg](attention.svg) shows three heads for the first of them, two of which are chosen.
With the model served, this draws it again:

```sh
seqserve attend --model g2p-en onomatopoeia --layer 1 --head 0 --head 1 --head 3 \\
  --reduction none --out export/reports/attention.svg
```
"""


@click.command()
@click.option("--num-learned", default=20_000, show_default=True, help="Words for the reference.")
@click.option("--num-chosen", default=500, show_default=True, help="Words to choose heads on.")
@click.option("--num-scored", default=1500, show_default=True, help="Words to score heads on.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    default=_ROOT / "reports" / "alignment.md",
    help="The report.",
)
def main(num_learned: int, num_chosen: int, num_scored: int, out: Path) -> None:
    """Writes the report on the shipped model."""
    torch.set_num_threads(1)
    split = split_words(read_dictionary(), num_test=_NUM_TEST, num_valid=_NUM_VALID, seed=1)
    learned, chosen, scored = (
        choose_pairs(part, number)
        for part, number in (
            (split.train, num_learned),
            (split.valid, num_chosen),
            (split.test, num_scored),
        )
    )
    aligner = MonotoneAligner()
    aligner.learn(learned)
    source = read_source_folder(_ROOT / "checkpoints" / "g2p-en", is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    record = choose_alignment(source, ExplainGraph(source.model))
    assert record is not None
    config = source.model.config
    heads = list(itertools.product(range(config.num_decoder_layers), range(config.num_heads)))
    sets = [one for size in range(1, len(heads) + 1) for one in itertools.combinations(heads, size)]
    references = [[aligner.align(*pair) for pair in pairs] for pairs in (chosen, scored)]
    of_chosen, of_scored = (attend_to_letters(source, pairs) for pairs in (chosen, scored))
    best = min(sets, key=lambda one: score_heads(references[0], of_chosen, one).error_rate)
    last = [head for head in heads if head[0] == config.num_decoder_layers - 1]
    rows = [
        ("chosen by export", record.heads, f"{record.agreement:.1%}"),
        ("last layer", last, f"{record.last_layer_agreement:.1%}"),
        ("all", heads, ""),
        ("best by the obvious alignment", best, ""),
        *((f"layer {layer}, head {head}", [(layer, head)], "") for layer, head in heads),
    ]
    scores = [score_heads(references[1], of_scored, one) for _, one, _ in rows]
    report = _REPORT.format(
        python=platform.python_version(),
        torch=torch.__version__,
        num_samples=len(source.samples),
        num_tokens=record.count,
        num_learned=len(learned),
        num_chosen=len(chosen),
        num_scored=len(scored),
        num_phonemes=scores[0].num_phonemes,
        num_sets=len(sets),
        rows="\n".join(
            f"| {name} | {_list(one)} | {share} | {score.error_rate:.1%} | "
            f"{score.far_error_rate:.1%} | {score.backward_rate:.1%} |"
            for (name, one, share), score in zip(rows, scores, strict=True)
        ),
        examples="\n".join(_make_examples(source, record.heads)),
    )
    out.parent.mkdir(exist_ok=True)
    out.write_text(report, encoding="utf-8")
    click.echo(f"chosen heads {_list(record.heads)}: {scores[0]}")
    click.echo(f"last layer: {scores[1]}")
    click.echo(f"wrote {out}")


def choose_pairs(dictionary: Dictionary, number: int) -> list[Pair]:
    """Words spread over all, each with its first pronunciation."""
    pairs = [(word, pronunciations[0]) for word, pronunciations in dictionary.items()]
    return pairs[:: max(1, len(pairs) // number)][:number]


def score_heads(
    references: Sequence[Sequence[int]], weights: Sequence[Tensor], heads: Sequence[Head]
) -> AlignmentScore:
    """Scores the mean of some heads, given all weights [L, H, T, S] of each word."""
    return score_alignments(references, [align(one, heads).tolist() for one in weights])


def _make_examples(source: GenerationSource, heads: Sequence[Head]) -> Iterator[str]:
    """A row of the table for each example."""
    pairs = [(word, tuple(phonemes.split())) for word, phonemes in _EXAMPLES.items()]
    for (word, phonemes), weights in zip(pairs, attend_to_letters(source, pairs), strict=True):
        letters = (f"{word[place]} ({place})" for place in align(weights, heads).tolist())
        yield f"| {word} | {' '.join(phonemes)} | {' '.join(letters)} |"


def _list(heads: Sequence[Head]) -> str:
    return ", ".join(f"{layer}.{head}" for layer, head in heads)


if __name__ == "__main__":
    main()
