"""Opens the playground if the settings ask for it, and if what it needs is installed."""

from __future__ import annotations

from collections.abc import Sequence as Items
from typing import TYPE_CHECKING

import grpc

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError

if TYPE_CHECKING:
    from seqserve.playground.playground import Playground


def open_playground(
    config: ServerConfig, interceptors: Items[grpc.aio.ServerInterceptor], *, has_tokens: bool
) -> Playground | None:
    """The playground; None if it is off.

    Args:
        config: The settings.
        interceptors: Of the server.
        has_tokens: Whether callers need tokens.

    Raises:
        ConfigurationError: h11 is not installed.
    """
    if not config.playground:
        return None
    try:
        # Only here: nobody needs what is off.
        from seqserve.playground.playground import Playground
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"playground is set, but {error.name} is not installed; install seqserve[playground], "
            "or leave playground out"
        ) from error
    return Playground(config, interceptors, has_tokens=has_tokens)
