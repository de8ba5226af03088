"""Signals to stop: before, while and after models are opened."""

import contextlib
import signal
from collections.abc import Iterator

import pytest

from seqserve.signals import LoadingInterrupt, StopSignals


@pytest.fixture
def signals() -> Iterator[StopSignals]:
    """Installed for the time of a test."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    taken = StopSignals()
    taken.install()
    yield taken
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_loading_is_left_at_once(number: signal.Signals, signals: StopSignals) -> None:
    """What stands behind the signal in the block is not done, and no ``except Exception`` helps."""
    steps = []

    def load() -> None:
        try:
            steps.append("before")
            signal.raise_signal(number)
            steps.append("after")
        except Exception:
            steps.append("swallowed")

    with pytest.raises(LoadingInterrupt) as caught, signals.interrupting():
        load()
    assert steps == ["before"]
    assert caught.value.name == number.name


def test_loading_does_not_begin_after_a_signal(signals: StopSignals) -> None:
    """A signal that came too early for the block is not forgotten."""
    signal.raise_signal(signal.SIGTERM)
    with pytest.raises(LoadingInterrupt), signals.interrupting():
        pytest.fail("the block was entered")


def test_interrupt_that_got_lost_ends_the_block(signals: StopSignals) -> None:
    """Python drops what a handler raises in a destructor; the end of the block raises it again."""

    def load() -> None:
        with contextlib.suppress(LoadingInterrupt):
            signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # a second one does not disturb the way out

    with pytest.raises(LoadingInterrupt), signals.interrupting():
        load()


def test_later_signals_reach_the_listener(signals: StopSignals) -> None:
    """Those between loading and listening, too; the numbers are as they came."""
    heard: list[int] = []
    with signals.interrupting():
        pass
    signal.raise_signal(signal.SIGINT)
    signals.listen(heard.append)
    signal.raise_signal(signal.SIGTERM)
    assert heard == [signal.SIGINT, signal.SIGTERM]
