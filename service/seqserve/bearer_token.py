"""Tokens that callers send to be let in, and the file that lists them.

A file is TOML, with a table for each token::

    [[tokens]]
    name = "search"               # who calls, for the log and for fair shares
    sha256 = "9f86d081884c7d65…"  # of the token, in hexadecimal; or value = "the token itself"
    scopes = ["infer"]            # the default; "admin" for calls that change what is served
    max_priority = "normal"       # low, normal or high, which is the default
    requests_per_second = 50      # no limit if left out
    burst = 100                   # requests at once; a second's worth if left out

Tokens are compared by their SHA-256, so a file with digests gives nothing away. That holds for
random tokens only, as from ``openssl rand -hex 32``.
"""

import enum
import hashlib
import math
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

import pydantic

from seqserve.errors import ConfigurationError
from seqserve.sequence import Priority

MIN_LENGTH = 16
"""Characters of a token; shorter ones are guessed."""


class Scope(enum.StrEnum):
    """What a token is for."""

    INFER = "infer"
    ADMIN = "admin"


class BearerToken(pydantic.BaseModel):
    """Who holds a token, and what it allows."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str = pydantic.Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """The caller, in the log and among others who share a model."""
    value: pydantic.SecretStr | None = None
    """The token itself, unless ``sha256`` is given."""
    sha256: str = pydantic.Field(default="", pattern=r"^([0-9a-fA-F]{64})?$")
    """Of the token, in hexadecimal."""
    scopes: frozenset[Scope] = pydantic.Field(default=frozenset({Scope.INFER}), min_length=1)
    max_priority: Literal["low", "normal", "high"] = "high"
    """The highest priority that requests may ask for."""
    requests_per_second: float | None = pydantic.Field(default=None, gt=0, allow_inf_nan=False)
    """How many calls, and messages of streams, in the long run; None for any number."""
    burst: int | None = pydantic.Field(default=None, ge=1)
    """How many at once; None for those of one second."""

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if (self.value is None) == (not self.sha256):
            raise ValueError("one of `value` and `sha256` must be set")
        if self.value is not None:
            check_value(self.value.get_secret_value())
        if self.burst is not None and self.requests_per_second is None:
            raise ValueError("`burst` has an effect with `requests_per_second` only")
        return self

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the token."""
        if self.value is None:
            return bytes.fromhex(self.sha256)
        return digest_of(self.value.get_secret_value())

    @property
    def highest_priority(self) -> Priority:
        """The class that ``max_priority`` names."""
        return Priority[self.max_priority.upper()]

    @property
    def burst_size(self) -> int:
        """How many requests may come at once."""
        return self.burst or max(1, math.ceil(self.requests_per_second or 0))


class _TokenFile(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    tokens: tuple[BearerToken, ...] = pydantic.Field(min_length=1)


def digest_of(value: str) -> bytes:
    """The SHA-256 of what a caller sends."""
    return hashlib.sha256(value.encode("utf-8", "surrogateescape")).digest()


def check_value(value: str) -> None:
    """Refuses tokens that can be guessed, or that no header can carry.

    Raises:
        ValueError: The message tells nothing of the token.
    """
    if len(value) < MIN_LENGTH:
        raise ValueError(
            f"a token must have at least {MIN_LENGTH} characters; make one with: "
            "openssl rand -hex 32"
        )
    if not all(_is_allowed(character) for character in value):
        raise ValueError("a token must be of ASCII letters, digits and the characters ._~+/=-")


def parse_tokens(data: bytes, path: Path) -> tuple[BearerToken, ...]:
    """Reads the contents of a token file.

    Raises:
        ConfigurationError: It is no list of tokens; the message tells none of them.
    """
    try:
        settings: Any = tomllib.loads(data.decode("utf-8"))
        tokens = _TokenFile.model_validate(settings).tokens
    except pydantic.ValidationError as error:
        problems = (
            f"{_place(problem['loc'])}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise ConfigurationError(f"token_file {path}: {'; '.join(problems)}") from None
    except ValueError as error:
        raise ConfigurationError(f"token_file {path} is not TOML: {error}") from None
    check_distinct(tokens, f"token_file {path}")
    return tokens


def check_distinct(tokens: tuple[BearerToken, ...], origin: str) -> None:
    """Refuses two entries of one name, or one token under two names.

    Raises:
        ConfigurationError: There are such entries; the message has their names.
    """
    names: dict[bytes, str] = {}
    for token in tokens:
        if token.name in names.values():
            raise ConfigurationError(f"{origin}: two tokens are named `{token.name}`; rename one")
        if token.digest in names:
            raise ConfigurationError(
                f"{origin}: `{names[token.digest]}` and `{token.name}` are the same token; "
                "leave one of them out"
            )
        names[token.digest] = token.name


def _is_allowed(character: str) -> bool:
    # Source: RFC 6750, section 2.1, ``b64token``.
    return character.isascii() and (character.isalnum() or character in "._~+/=-")


def _place(location: tuple[int | str, ...]) -> str:
    """Where in the file, as in ``tokens[0].name``."""
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).lstrip(".")
