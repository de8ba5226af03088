"""How the long run judges samples of memory."""

import pytest

from bench.long_run import MAX_GROWTH, judge


def test_warm_up_does_not_count() -> None:
    """Memory that doubles in the first tenth and stays is flat."""
    growth = judge([*range(100, 200, 10), *[200] * 90])
    assert (growth.early_bytes, growth.late_bytes, growth.share) == (200, 200, 0.0)
    assert growth.is_flat


@pytest.mark.parametrize(
    ("slope", "is_flat"), [(0.0, True), (0.05, True), (0.1, False), (1, False)]
)
def test_steady_growth_is_a_leak(slope: float, is_flat: bool) -> None:
    """From the second tenth to the last there are eight tenths of the way."""
    samples = [round(10_000 * (1 + slope * place / 100)) for place in range(100)]
    growth = judge(samples)
    assert growth.share == pytest.approx(0.8 * slope / (1 + 0.145 * slope), abs=1e-3)
    assert growth.is_flat == is_flat == (growth.share <= MAX_GROWTH)


def test_single_peaks_count_for_nothing() -> None:
    """A sample in the middle of a large batch is not the memory of a tenth."""
    samples = [1000] * 100
    samples[95] = 9000
    assert judge(samples).is_flat
