"""The pure parts of the decode benchmark: what it sends, how it judges a trial, how it searches."""

import statistics
from itertools import pairwise

import pytest

from bench.rate_search import RateSearch
from bench.trial import Outcome, Trial, percentile, summarize
from bench.workload import (
    END_TOKEN,
    PAD_TOKEN,
    VOCABULARY_SIZE,
    MeasurementError,
    Sentence,
    agreement,
    check_targets,
    make_arrivals,
    make_sentences,
    most_common,
)

_TRIAL = Trial(rate=10.0, seconds=8.0, warmup_seconds=2.0, limit_seconds=2.0)


def _outcomes(latency: float, growth: float = 0.0, rate: float = 10.0) -> list[Outcome]:
    """Requests at even times; each takes longer than the one before by ``growth``."""
    return [
        Outcome(index / rate, index / rate + latency + growth * index, 8, is_answered=True)
        for index in range(round(_TRIAL.seconds * rate))
    ]


def test_sentences_are_seeded_and_skewed() -> None:
    """Lengths are 5 to 80, 25 on average, most of them shorter; targets are multiples of 8."""
    sentences = make_sentences(2000, seed=1)
    lengths = [len(sentence.source) for sentence in sentences]
    assert sentences == make_sentences(2000, seed=1)
    assert sentences != make_sentences(2000, seed=2)
    assert (min(lengths), max(lengths)) == (5, 80)
    assert statistics.median(lengths) < statistics.mean(lengths)
    assert 24 < statistics.mean(lengths) < 26
    assert {sentence.target_length for sentence in sentences} == set(range(8, 81, 8))


def test_sources_end_once_and_stay_in_the_vocabulary() -> None:
    """No source holds the padding token, and none the end token but at its end."""
    for sentence in make_sentences(200, seed=1):
        *words, last = sentence.source
        assert last == END_TOKEN
        assert all(PAD_TOKEN < word < VOCABULARY_SIZE - 1 for word in words)


def test_most_common_lengths_come_in_whole_groups() -> None:
    """A part for trials has large groups of equal target length, not a few of each."""
    sentences = [Sentence([END_TOKEN], length) for length in (8, 16, 16, 24, 16, 8)]
    assert [one.target_length for one in most_common(sentences, 4)] == [16, 16, 16, 8]


def test_arrivals_have_the_rate() -> None:
    """A Poisson process of 50 a second for 100 s has 5000 arrivals; off by 5 % once in 2000."""
    arrivals = make_arrivals(50.0, 100.0, seed=3)
    assert 4750 < len(arrivals) < 5250
    assert all(earlier < later for earlier, later in pairwise(arrivals))
    assert arrivals[-1] < 100.0


def test_a_target_of_another_length_is_an_error() -> None:
    """The message says which side, which sentence, and what was asked for."""
    sentences = [Sentence([END_TOKEN], 2), Sentence([END_TOKEN], 3)]
    with pytest.raises(MeasurementError) as error:
        check_targets("seqserve", sentences, [[5, 6], [5, 6]])
    assert str(error.value) == ("seqserve generated 2 tokens for sentence 1, but 3 were asked for")
    with pytest.raises(MeasurementError, match=r"^seqserve returned 1 targets for 2$"):
        check_targets("seqserve", sentences, [[5, 6]])


def test_agreement_ends_at_the_first_difference() -> None:
    """What follows a difference does not count, nor does the last token."""
    assert agreement([[1, 2, 3, 4, 9], [5, 0]], [[1, 2, 7, 4, 8], [5, 1]]) == 3 / 5


def test_percentiles_are_values_that_occurred() -> None:
    """The smallest value that the share of all do not exceed."""
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([3.0], 0.5) == 3.0
    assert percentile([], 0.5) == 0.0


def test_a_steady_trial_holds() -> None:
    """Requests after the warm-up count; throughput is of those answered in that time."""
    summary = summarize(_TRIAL, _outcomes(0.5))
    assert summary["is_sustained"]
    assert summary["num_requests"] == 60
    assert summary["requests_per_second"] == pytest.approx(10.0, rel=0.02)
    assert summary["target_tokens_per_second"] == pytest.approx(80.0, rel=0.02)
    assert summary["p95_seconds"] == pytest.approx(0.5)
    assert summary["mean_outstanding"] == pytest.approx([5.0] * 3, abs=0.5)


def test_a_late_trial_fails() -> None:
    """The 95th percentile must be below the limit."""
    assert not summarize(_TRIAL, _outcomes(2.1))["is_sustained"]


def test_a_growing_queue_fails() -> None:
    """Even where latencies are within the limit until the trial ends."""
    summary = summarize(_TRIAL, _outcomes(0.0, growth=0.0045, rate=50.0))
    assert summary["p95_seconds"] < 2.0
    assert summary["is_growing"]
    assert not summary["is_sustained"]


def test_an_unanswered_request_fails() -> None:
    """One that was refused or given up."""
    outcomes = _outcomes(0.5)
    outcomes[50] = outcomes[50]._replace(is_answered=False)
    summary = summarize(_TRIAL, outcomes)
    assert summary["num_unanswered"] == 1
    assert not summary["is_sustained"]


@pytest.mark.parametrize("first_rate", [1.0, 30.0, 400.0])
def test_search_finds_the_highest_rate(first_rate: float) -> None:
    """From below and from above, to the resolution that the bisections give."""
    search = RateSearch(first_rate, factor=1.5, num_bisections=3, max_trials=30)
    while (rate := search.next_rate()) is not None:
        search.update(rate, is_sustained=rate <= 100.0)
    assert search.sustained is not None
    assert 100.0 / 1.5 ** (1 / 8) < search.sustained <= 100.0


def test_search_ends_when_nothing_holds() -> None:
    """After its last trial, without a rate."""
    search = RateSearch(10.0, factor=2.0, num_bisections=1, max_trials=3)
    rates = []
    while (rate := search.next_rate()) is not None:
        rates.append(rate)
        search.update(rate, is_sustained=False)
    assert rates == [10.0, 5.0, 2.5]
    assert search.sustained is None
