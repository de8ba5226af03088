"""How much the decode benchmark measures: ``BENCH=quick`` or ``BENCH=full``."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Extent:
    """How many sentences, rounds and seconds."""

    num_sentences: int
    """Translated offline in one round by greedy search."""
    num_beam_sentences: int
    """Of these, by beam search."""
    num_equal_sentences: int
    """Of equal lengths, for ``transformers``."""
    num_sample_sentences: int
    """Of common target lengths, to choose the peer's settings with."""
    chooses_for_beams: bool
    """Whether the peer's settings are tried for beam search, too, or those for greedy are taken."""
    num_rounds: int
    """Every side is measured once in each."""
    trial_seconds: float
    """Of arrivals at one rate."""
    warmup_seconds: float
    """The beginning of a trial, which is not counted."""
    rate_factor: float
    """From one rate to the next until one fails."""
    num_bisections: int
    """Between the highest rate that held and the lowest that failed."""
    num_bursts: int
    """Sent to the peer with each of its settings, to choose one."""
    num_attempts: int
    """At a rate, before it counts as failed: other programs can spoil a trial."""
    num_calls: int
    """Single calls of each side in one round."""
    num_starts: int
    """Of each server, to time it."""
    num_steps: int
    """Decoder steps timed for each number of rows."""


QUICK = Extent(
    num_sentences=96,
    num_beam_sentences=32,
    num_equal_sentences=48,
    num_sample_sentences=48,
    chooses_for_beams=False,
    num_rounds=2,
    trial_seconds=3.0,
    warmup_seconds=0.75,
    rate_factor=1.6,
    num_bisections=1,
    num_bursts=1,
    num_attempts=1,
    num_calls=5,
    num_starts=1,
    num_steps=4,
)
FULL = Extent(
    num_sentences=512,
    num_beam_sentences=512,
    num_equal_sentences=256,
    num_sample_sentences=256,
    chooses_for_beams=True,
    num_rounds=5,
    trial_seconds=20.0,
    warmup_seconds=5.0,
    rate_factor=1.4,
    num_bisections=3,
    num_bursts=3,
    num_attempts=2,
    num_calls=20,
    num_starts=3,
    num_steps=24,
)
