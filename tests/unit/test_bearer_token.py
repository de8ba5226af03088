"""The file of tokens: what it may hold, and that no message gives a token away."""

import hashlib
from pathlib import Path

import pytest

from seqserve.bearer_token import BearerToken, Scope, parse_tokens
from seqserve.errors import ConfigurationError
from seqserve.sequence import Priority

PATH = Path("tokens.toml")
VALUE = "0123456789abcdef-secret"
DIGEST = hashlib.sha256(VALUE.encode()).hexdigest()


def parse(text: str) -> tuple[BearerToken, ...]:
    """The tokens of a file."""
    return parse_tokens(text.encode(), PATH)


def refusal(text: str) -> str:
    """The message with which a file is refused."""
    with pytest.raises(ConfigurationError) as caught:
        parse(text)
    assert "secret" not in str(caught.value)
    assert DIGEST not in str(caught.value)
    return str(caught.value).removeprefix(f"token_file {PATH}: ")


def entry(more: str = "", name: str = "a", value: str = VALUE) -> str:
    """A table of the file."""
    return f'[[tokens]]\nname = "{name}"\nvalue = "{value}"\n{more}\n'


def test_value_and_digest_are_the_same_token() -> None:
    """A digest in capitals, too."""
    (plain,) = parse(entry())
    for digest in (DIGEST, DIGEST.upper()):
        (hashed,) = parse(f'[[tokens]]\nname = "a"\nsha256 = "{digest}"')
        assert plain.digest == hashed.digest == bytes.fromhex(DIGEST)


def test_defaults_are_inference_at_any_priority_and_rate() -> None:
    """What is left out is not limited, but administration is not given."""
    (token,) = parse(entry())
    assert token.scopes == {Scope.INFER}
    assert token.highest_priority is Priority.HIGH
    assert token.requests_per_second is None


def test_everything_can_be_set() -> None:
    """Scopes, priority, rate and burst."""
    (token,) = parse(
        entry(
            'scopes = ["infer", "admin"]\nmax_priority = "low"\n'
            "requests_per_second = 0.5\nburst = 7"
        )
    )
    assert token.scopes == set(Scope)
    assert token.highest_priority is Priority.LOW
    assert (token.requests_per_second, token.burst_size) == (0.5, 7)


@pytest.mark.parametrize(("rate", "burst"), [("0.5", 1), ("1", 1), ("2.5", 3), ("50", 50)])
def test_burst_is_a_seconds_worth(rate: str, burst: int) -> None:
    """And at least one, or nobody would come in."""
    assert parse(entry(f"requests_per_second = {rate}"))[0].burst_size == burst


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "tokens: Field required"),
        ("tokens = []", "tokens: Tuple should have at least 1 item after validation, not 0"),
        ("token = 1\n" + entry(), "token: Extra inputs are not permitted"),
        (entry("scope = 1"), "tokens[0].scope: Extra inputs are not permitted"),
        (entry('scopes = ["all"]'), "tokens[0].scopes[0]: Input should be 'infer' or 'admin'"),
        (entry("scopes = []"), "tokens[0].scopes: Frozenset should have at least 1 item"),
        (entry('max_priority = "top"'), "tokens[0].max_priority: Input should be 'low', 'normal'"),
        (
            entry("requests_per_second = 0"),
            "tokens[0].requests_per_second: Input should be greater than 0",
        ),
        (
            entry("requests_per_second = inf"),
            "tokens[0].requests_per_second: Input should be a finite number",
        ),
        (entry("burst = 0"), "tokens[0].burst: Input should be greater than or equal to 1"),
        (
            entry("burst = 5"),
            "tokens[0]: Value error, `burst` has an effect with `requests_per_second` only",
        ),
        (entry(name="a b"), "tokens[0].name: String should match pattern"),
        (entry(name=""), "tokens[0].name: String should match pattern"),
        (
            '[[tokens]]\nname = "a"',
            "tokens[0]: Value error, one of `value` and `sha256` must be set",
        ),
        (
            entry(f'sha256 = "{DIGEST}"'),
            "tokens[0]: Value error, one of `value` and `sha256` must be set",
        ),
        (
            '[[tokens]]\nname = "a"\nsha256 = "12ab"',
            "tokens[0].sha256: String should match pattern",
        ),
        (
            entry(value="secret"),
            "tokens[0]: Value error, a token must have at least 16 characters; make one with: "
            "openssl rand -hex 32",
        ),
        (
            entry(value="secret with spaces"),
            "tokens[0]: Value error, a token must be of ASCII letters, digits and the characters "
            "._~+/=-",
        ),
        (entry(name="a") + entry(name="a"), "two tokens are named `a`; rename one"),
        (
            entry(name="a") + f'[[tokens]]\nname = "b"\nsha256 = "{DIGEST}"',
            "`a` and `b` are the same token; leave one of them out",
        ),
    ],
)
def test_wrong_files_are_refused_with_the_place(text: str, message: str) -> None:
    """The table, the key and the rule; never the token."""
    assert refusal(text).startswith(message)


@pytest.mark.parametrize("data", [b"name = = 1", b"name = '\xff'"])
def test_what_is_no_toml_is_named(data: bytes) -> None:
    """Nor text."""
    with pytest.raises(ConfigurationError, match=r"token_file tokens\.toml is not TOML: "):
        parse_tokens(data, PATH)


def test_tokens_do_not_show_their_values() -> None:
    """Not in the log of whoever prints one."""
    assert "secret" not in repr(parse(entry()))
