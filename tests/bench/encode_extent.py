"""How much the encode benchmark measures: ``BENCH=quick`` or ``BENCH=full``."""

import dataclasses

from bench.encode_models import BERT_BASE, MINILM


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How much is measured."""

    num_texts: dict[str, int]
    """Embedded in bulk by each side, by model; every round has its own share of them."""
    num_sample_texts: dict[str, int]
    """To choose the batch sizes of the peers with."""
    num_rounds: int
    num_single: int
    """Single calls of each side in one round."""
    num_calls: dict[str, int]
    """Of each client, by model."""


QUICK = Extent(
    num_texts={MINILM: 1000, BERT_BASE: 96},
    num_sample_texts={MINILM: 200, BERT_BASE: 48},
    num_rounds=2,
    num_single=10,
    num_calls={MINILM: 4, BERT_BASE: 1},
)
FULL = Extent(
    num_texts={MINILM: 10_000, BERT_BASE: 600},
    num_sample_texts={MINILM: 500, BERT_BASE: 64},
    num_rounds=5,
    num_single=20,
    num_calls={MINILM: 16, BERT_BASE: 3},
)
