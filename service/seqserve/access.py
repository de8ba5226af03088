"""Who may come in: the tokens of a file, as it stands now, and how often each may come.

A file that is replaced counts within a second. One that cannot be read any more, or not understood,
changes nothing but the log: a slip of the pen must not lock everybody out.
"""

import dataclasses
import hmac
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from seqserve.bearer_token import (
    BearerToken,
    Scope,
    check_distinct,
    check_value,
    digest_of,
    parse_tokens,
)
from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError
from seqserve.rate_limit import RateLimit

_log = structlog.get_logger(__name__)
_CHECK_SECONDS = 1.0
"""Between two looks at the file."""
_SINGLE_NAME = "default"
"""Of the token that is a setting."""


@dataclasses.dataclass(frozen=True, slots=True)
class Grant:
    """A known token, and how much of its rate is left."""

    token: BearerToken
    digest: bytes
    limit: RateLimit | None
    clock: Callable[[], float]

    def take(self) -> float:
        """Counts a request; returns 0.0, or the seconds until there may be one."""
        return 0.0 if self.limit is None else self.limit.take(self.clock())


class Access:
    """The tokens of a server. Event loop only."""

    def __init__(
        self,
        path: Path | None,
        single: BearerToken | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the tokens.

        Args:
            path: The file of tokens; None for none.
            single: A token that is in no file.
            clock: Seconds, for rates and for when to look at the file again.

        Raises:
            ConfigurationError: The file cannot be read, or is no list of tokens.
        """
        self._path = path
        self._single = single
        self._clock = clock
        self._grants: list[Grant] = []
        self._data = None if path is None else _load(path)
        self._set(self._parse(self._data))
        self._checked_at = clock()

    def find(self, value: str) -> Grant | None:
        """What a token allows; None if it is unknown.

        All tokens are compared, each in constant time: how long it takes tells nothing of them.
        """
        self._renew()
        digest = digest_of(value)
        found = None
        for grant in self._grants:
            if hmac.compare_digest(grant.digest, digest):
                found = grant
        return found

    def _renew(self) -> None:
        """Takes over a changed file, at most once a second."""
        now = self._clock()
        if self._path is None or now - self._checked_at < _CHECK_SECONDS:
            return
        self._checked_at = now
        former, self._data = self._data, None
        try:
            self._data = _load(self._path)
            if self._data != former:
                self._set(self._parse(self._data))
                _log.info("tokens renewed", tokens=len(self._grants))
        except ConfigurationError as error:
            if self._data != former:  # once for each state of the file
                _log.error("tokens not renewed; the former stay valid", reason=str(error))

    def _parse(self, data: bytes | None) -> tuple[BearerToken, ...]:
        """The tokens of the file, and the one that is in none."""
        listed = () if self._path is None or data is None else parse_tokens(data, self._path)
        if self._single is None:
            return listed
        tokens = (*listed, self._single)
        check_distinct(tokens, f"token_file {self._path} with the setting token")
        return tokens

    def _set(self, tokens: tuple[BearerToken, ...]) -> None:
        """Replaces the tokens; rates that stay as they are do not start anew."""
        limits = {grant.token.name: grant.limit for grant in self._grants}
        self._grants = [
            Grant(token, token.digest, _limit(token, limits.get(token.name)), self._clock)
            for token in tokens
        ]


def open_access(config: ServerConfig) -> Access | None:
    """The tokens that the settings ask for; None lets everybody in.

    Raises:
        ConfigurationError: The token can be guessed, or the file is no list of tokens.
    """
    if config.token is None:
        return None if config.token_file is None else Access(config.token_file)
    try:
        check_value(config.token.get_secret_value())
    except ValueError as error:
        raise ConfigurationError(f"token: {error}") from None
    single = BearerToken(name=_SINGLE_NAME, value=config.token, scopes=frozenset(Scope))
    return Access(config.token_file, single)


def _load(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"token_file {path} cannot be read: {error.strerror}") from error


def _limit(token: BearerToken, former: RateLimit | None) -> RateLimit | None:
    if token.requests_per_second is None:
        return None
    limit = RateLimit(token.requests_per_second, token.burst_size)
    if former is None or (former.per_second, former.burst) != (limit.per_second, limit.burst):
        return limit
    return former
