"""Properties that are checked by time."""

import time

import pytest

from fuzzing import VARIABLE, fuzz


@pytest.mark.parametrize("seconds", [None, "0"])
def test_properties_are_checked_once_among_other_tests(
    seconds: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no time is given."""
    monkeypatch.delenv(VARIABLE, raising=False)
    if seconds is not None:
        monkeypatch.setenv(VARIABLE, seconds)
    checked: list[float] = []
    assert fuzz(lambda: checked.append(0.0)) == 1
    assert len(checked) == 1


def test_properties_are_checked_for_as_long_as_is_wanted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And it is said how often."""
    monkeypatch.setenv(VARIABLE, "0.05")
    checked: list[float] = []
    began_at = time.monotonic()
    num_checks = fuzz(lambda: checked.append(time.monotonic()))
    assert time.monotonic() - began_at >= 0.05
    assert num_checks == len(checked) > 1
    assert f"{num_checks} rounds of examples in 0.05 seconds" in capsys.readouterr().out
