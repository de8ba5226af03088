"""The pace of a model: the fastest of the latest steps, and nothing old."""

from fakes import make_sequence
from seqserve.batch import Batch
from seqserve.pace import UNKNOWN, Pace


def test_fastest_of_the_latest_counts() -> None:
    """Of steps the share of a row. Slow ones do not slow it down, old fast ones make room."""
    pace = Pace()
    assert pace.estimate(0.0) == UNKNOWN
    encode = Batch("encode", [make_sequence(range(100)), make_sequence(range(50))])
    decode = Batch("decode", encode.sequences)
    for seconds in (4.0, 2.0, 6.0):
        pace.observe(encode, seconds, 1.0)
        pace.observe(decode, seconds / 10, 1.0)
    assert pace.estimate(1.0) == (2.0 / 200, 0.1)
    for _ in range(16):
        pace.observe(decode, 0.5, 1.0)
    assert pace.estimate(1.0) == (2.0 / 200, 0.25)


def test_steps_with_the_fewest_rows_count() -> None:
    """Full batches tell of one row only its share of them, and only while nothing better does."""
    pace = Pace()
    full = Batch("decode", [make_sequence() for _ in range(64)])
    for _ in range(16):
        pace.observe(full, 0.032, 0.0)
    assert pace.estimate(0.0).step_seconds == 0.0005
    pace.observe(Batch("decode", [make_sequence()]), 0.003, 1.0)
    for _ in range(16):
        pace.observe(full, 0.032, 2.0)
    assert pace.estimate(2.0).step_seconds == 0.003
    assert pace.estimate(11.5).step_seconds == 0.0005


def test_small_passes_tell_nothing_about_tokens() -> None:
    """What a pass takes for a few tokens is not in proportion to them."""
    pace = Pace()
    pace.observe(Batch("embed", [make_sequence(range(9))]), 1.0, 0.0)
    assert pace.estimate(0.0) == UNKNOWN


def test_old_measurements_are_forgotten() -> None:
    """A model that refused everything for ten seconds tries again."""
    pace = Pace()
    pace.observe(Batch("decode", [make_sequence()]), 99.0, 0.0)
    assert pace.estimate(10.0).step_seconds == 99.0
    assert pace.estimate(10.1) == UNKNOWN
