"""How much the encode benchmark measures: ``BENCH=quick`` or ``BENCH=full``."""

import dataclasses

from bench.encode_models import BERT_BASE, MINILM


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured."""

    num_texts: dict[str, int]
    """Embedded in bulk by each side, by model: those that are measured. Every round has its own
    share of them."""
    num_sample_texts: dict[str, int]
    """To choose the batch sizes of the peers with."""
    num_rounds: int
    num_single: int
    """Single calls of each side in one round."""
    num_calls: dict[str, int]
    """Of each client, by model."""


QUICK = Extent(
    # Exporting the other model in int8 takes longer than everything else together.
    num_texts={MINILM: 400},
    num_sample_texts={MINILM: 48},
    num_rounds=2,
    num_single=8,
    num_calls={MINILM: 3},
)
FULL = Extent(
    num_texts={MINILM: 10_000, BERT_BASE: 600},
    num_sample_texts={MINILM: 500, BERT_BASE: 64},
    num_rounds=5,
    num_single=20,
    num_calls={MINILM: 16, BERT_BASE: 3},
)
