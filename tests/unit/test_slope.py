"""Slopes of memory: what bends them and what does not."""

import random

import pytest

from soak.slope import fit_slope


def test_line_has_its_slope() -> None:
    """Places need not be evenly spaced."""
    samples = [(place**1.5, 7 + 3 * place**1.5) for place in range(50)]
    assert fit_slope(samples, 0.0) == pytest.approx(3)


def test_warm_up_does_not_count() -> None:
    """Memory that grows in the first part and stays has no slope."""
    samples = [(float(place), min(place, 60) * 100.0) for place in range(100)]
    assert fit_slope(samples, 0.0) > 0
    assert fit_slope(samples, 0.6) == 0


def test_single_peaks_do_not_bend_it() -> None:
    """A fifth of the samples may be anything."""
    chance = random.Random(1)
    samples = [
        (float(place), 2.0 * place + (chance.uniform(0, 1e6) if place % 5 == 0 else 0))
        for place in range(100)
    ]
    assert fit_slope(samples, 0.0) == pytest.approx(2, rel=0.25)


def test_many_samples_are_summed_up() -> None:
    """An hour of them takes no longer than a minute."""
    samples = [(float(place), 0.5 * place) for place in range(20_000)]
    assert fit_slope(samples, 0.3) == pytest.approx(0.5)
