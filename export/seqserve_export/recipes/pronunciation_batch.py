"""Training batches: words of about equal length, shuffled anew each epoch."""

import dataclasses
import random
from collections.abc import Iterator, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor

from seqserve_export.recipes.pronunciation_data import Dictionary
from seqserve_export.recipes.pronunciation_tokenizer import END_ID, PAD_ID, START_ID, UNKNOWN_ID


@dataclasses.dataclass(frozen=True)
class Example:
    """One word as tokens."""

    source: list[int]
    """Letters and the end token."""
    targets: list[list[int]]
    """Every pronunciation, without start and end."""


@dataclasses.dataclass(frozen=True)
class Batch:
    """Rows for one training step, padded on the right."""

    source_tokens: Tensor
    """[B, S]."""
    source_lengths: Tensor
    """[B], int32."""
    target_tokens: Tensor
    """What the decoder reads: start, then the phonemes; [B, T]."""
    target_lengths: Tensor
    """[B], int32."""
    labels: Tensor
    """What it should write: the phonemes, then end; [B, T]."""

    def to(self, device: torch.device) -> "Batch":
        """Copies the batch to a device."""
        return Batch(*(getattr(self, field.name).to(device) for field in dataclasses.fields(self)))


def make_examples(dictionary: Dictionary, source: Tokenizer, target: Tokenizer) -> list[Example]:
    """Makes one example a word."""
    sources = source.encode_batch(list(dictionary))
    return [
        Example(encoding.ids, [target.encode(" ".join(phonemes)).ids for phonemes in listed])
        for encoding, listed in zip(sources, dictionary.values(), strict=True)
    ]


def make_batches(
    examples: Sequence[Example], batch_size: int, *, unknown_rate: float, seed: int, epoch: int
) -> Iterator[Batch]:
    """Makes the batches of an epoch: each word once, with one of its pronunciations.

    The result depends on the arguments alone, so that a resumed training sees the same batches.

    Args:
        examples: The words.
        batch_size: Words a batch; the last may have fewer.
        unknown_rate: Share of words in which a letter is replaced by the unknown token, so that
            its embedding is trained although no word contains it.
        seed: Of the whole training.
        epoch: Index of the epoch.
    """
    generator = random.Random(f"{seed}/{epoch}")
    rows = [
        (_hide_letter(example.source, unknown_rate, generator), generator.choice(example.targets))
        for example in examples
    ]
    generator.shuffle(rows)
    # Stable, so rows of equal lengths stay shuffled; there is hardly any padding in a batch.
    rows.sort(key=lambda row: (len(row[0]), len(row[1])))
    starts = list(range(0, len(rows), batch_size))
    generator.shuffle(starts)
    for start in starts:
        yield _collate(rows[start : start + batch_size])


def pad(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """Pads rows of tokens on the right: [B, T] tokens and [B] int32 lengths."""
    lengths = [len(row) for row in rows]
    longest = max(lengths)
    padded = [[*row, *[PAD_ID] * (longest - len(row))] for row in rows]
    return torch.tensor(padded), torch.tensor(lengths, dtype=torch.int32)


def _hide_letter(source: list[int], rate: float, generator: random.Random) -> list[int]:
    if generator.random() >= rate:
        return source
    index = generator.randrange(len(source) - 1)  # Never the end token.
    return [*source[:index], UNKNOWN_ID, *source[index + 1 :]]


def _collate(rows: Sequence[tuple[list[int], list[int]]]) -> Batch:
    source_tokens, source_lengths = pad([source for source, _ in rows])
    target_tokens, target_lengths = pad([[START_ID, *target] for _, target in rows])
    labels, _ = pad([[*target, END_ID] for _, target in rows])
    return Batch(source_tokens, source_lengths, target_tokens, target_lengths, labels)
