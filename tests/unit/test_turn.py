"""Where the time of several answers went."""

import numpy as np

from seqserve.sequence import EncoderOutput, Timing
from seqserve.servicers.turn import slowest, to_timing


def output(timing: Timing) -> EncoderOutput:
    """An answer."""
    return EncoderOutput(np.zeros(1, np.float32), timing)


def test_slowest_counts_for_all() -> None:
    """By the time until it was computed."""
    timings = [Timing(0.1, 0.2, 0.0), Timing(0.3, 0.1, 0.0), Timing(0.2, 0.1, 0.0)]
    assert slowest(map(output, timings)) == timings[1]


def test_text_is_cached_if_all_of_its_windows_are() -> None:
    """One that was computed in no time was computed all the same."""
    kept, computed = Timing(0.0, 0.0, 0.0, is_cached=True), Timing(0.0, 0.0, 0.0)
    assert not to_timing(slowest([output(kept), output(computed), output(kept)])).is_cached
    assert to_timing(slowest([output(kept), output(kept)])).is_cached
