"""Who may come in: tokens as their file stands, and their rates."""

import hmac
from pathlib import Path
from unittest import mock

import pytest
import structlog

from seqserve.access import Access, Grant, open_access
from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError

ONE, TWO, SINGLE = "one-one-one-one-one", "two-two-two-two-two", "single-single-single"


class FakeClock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Seconds."""
        return self.now


def write(path: Path, *values: str, more: str = "") -> Path:
    """A file of tokens, named after their first words."""
    path.write_text(
        "".join(
            f'[[tokens]]\nname = "{value.partition("-")[0]}"\nvalue = "{value}"\n{more}\n'
            for value in values
        ),
        encoding="utf-8",
    )
    return path


def name_of(found: Grant | None) -> str | None:
    """Whose token was found."""
    return None if found is None else found.token.name


def test_listed_tokens_are_found_and_no_others(tmp_path: Path) -> None:
    """Neither parts of tokens nor longer ones, whatever the characters."""
    known = Access(write(tmp_path / "tokens", ONE, TWO))
    assert [name_of(known.find(value)) for value in (ONE, TWO)] == ["one", "two"]
    for value in ("", ONE[:-1], ONE + "x", ONE.upper(), " " + ONE, "größe", "\udcff"):
        assert known.find(value) is None


def test_every_token_is_compared_by_a_digest_of_fixed_length(tmp_path: Path) -> None:
    """In constant time, also those behind the one that was found."""
    known = Access(write(tmp_path / "tokens", ONE, TWO))
    with mock.patch("hmac.compare_digest", wraps=hmac.compare_digest) as compare:
        known.find(ONE)
        known.find("x")
    lengths = [tuple(map(len, call.args)) for call in compare.call_args_list]
    assert lengths == [(32, 32)] * 4


def test_changed_file_counts_within_a_second(tmp_path: Path) -> None:
    """Added tokens come in, and removed ones stay out; the log has the number of tokens alone."""
    clock = FakeClock()
    known = Access(write(tmp_path / "tokens", ONE), clock=clock)
    write(tmp_path / "tokens", TWO)
    assert name_of(known.find(ONE)) == "one"  # not looked at yet
    clock.now += 1.0
    with structlog.testing.capture_logs() as logs:
        assert known.find(ONE) is None
        assert name_of(known.find(TWO)) == "two"
        clock.now += 1.0
        assert name_of(known.find(TWO)) == "two"
    assert logs == [{"event": "tokens renewed", "tokens": 1, "log_level": "info"}]


def test_swapped_link_counts(tmp_path: Path) -> None:
    """As Kubernetes replaces a mounted Secret: a link to a folder is renamed over another."""
    clock = FakeClock()
    for number, value in enumerate((ONE, TWO)):
        (tmp_path / str(number)).mkdir()
        write(tmp_path / str(number) / "tokens", value)
    (tmp_path / "..data").symlink_to("0")
    (tmp_path / "tokens").symlink_to("..data/tokens")
    known = Access(tmp_path / "tokens", clock=clock)
    (tmp_path / "..new").symlink_to("1")
    (tmp_path / "..new").rename(tmp_path / "..data")
    clock.now += 1.0
    assert known.find(ONE) is None
    assert name_of(known.find(TWO)) == "two"


@pytest.mark.parametrize("change", ["broken", "empty", "removed"])
def test_broken_file_changes_nothing_and_is_logged_once(tmp_path: Path, change: str) -> None:
    """Until it is mended."""
    clock = FakeClock()
    path = write(tmp_path / "tokens", ONE)
    known = Access(path, clock=clock)
    if change == "removed":
        path.unlink()
    else:
        path.write_text("tokens = " if change == "broken" else "", encoding="utf-8")
    with structlog.testing.capture_logs() as logs:
        for _ in range(3):
            clock.now += 1.0
            assert name_of(known.find(ONE)) == "one"
        assert [log["log_level"] for log in logs] == ["error"]
        assert logs[0]["event"] == "tokens not renewed; the former stay valid"
        assert str(path) in logs[0]["reason"]
        write(path, TWO)
        clock.now += 1.0
        assert known.find(ONE) is None
    assert [log["log_level"] for log in logs] == ["error", "info"]


def test_rate_outlives_other_changes_of_the_file(tmp_path: Path) -> None:
    """Who has spent a burst gets no new one from an edit; a new rate starts anew."""
    clock = FakeClock()
    path = write(tmp_path / "tokens", ONE, more="requests_per_second = 0.01")
    known = Access(path, clock=clock)

    def takes() -> list[bool]:
        found = known.find(ONE)
        assert found is not None
        return [found.take() == 0.0 for _ in range(2)]

    assert takes() == [True, False]
    write(path, ONE, TWO, more="requests_per_second = 0.01")
    clock.now += 1.0
    assert takes() == [False, False]
    write(path, ONE, more="requests_per_second = 0.02")
    clock.now += 1.0
    assert takes() == [True, False]


def test_tokens_without_a_rate_may_come_any_time(tmp_path: Path) -> None:
    """There is nothing to wait for."""
    found = Access(write(tmp_path / "tokens", ONE)).find(ONE)
    assert found is not None
    assert not any(found.take() for _ in range(1000))


def test_token_of_the_settings_may_do_everything(tmp_path: Path) -> None:
    """Beside those of a file, or alone."""
    path = write(tmp_path / "tokens", ONE)
    for settings in ({"token": SINGLE}, {"token": SINGLE, "token_file": path}):
        known = open_access(ServerConfig.model_validate(settings))
        assert known is not None
        found = known.find(SINGLE)
        assert found is not None
        assert found.token.scopes == {"infer", "admin"}
        assert name_of(known.find(ONE)) == ("one" if "token_file" in settings else None)


def test_without_tokens_there_is_no_access_control() -> None:
    """Everybody may come in."""
    assert open_access(ServerConfig()) is None


def test_weak_token_of_the_settings_is_refused() -> None:
    """An empty variable, above all; the message tells nothing of the token."""
    for value in ("", "tiny-secret"):
        with pytest.raises(ConfigurationError) as caught:
            open_access(ServerConfig.model_validate({"token": value}))
        assert str(caught.value) == (
            "token: a token must have at least 16 characters; make one with: openssl rand -hex 32"
        )


def test_token_in_the_file_and_in_the_settings_is_refused(tmp_path: Path) -> None:
    """It would be unclear what it may do."""
    settings = {"token": ONE, "token_file": write(tmp_path / "tokens", ONE)}
    with pytest.raises(ConfigurationError, match="`one` and `default` are the same token"):
        open_access(ServerConfig.model_validate(settings))


def test_file_that_cannot_be_read_is_refused_at_the_start(tmp_path: Path) -> None:
    """By name."""
    with pytest.raises(ConfigurationError, match=r"absent cannot be read: No such file or dir"):
        Access(tmp_path / "absent")
