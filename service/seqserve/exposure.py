"""Who can reach a server, and what they can read: told where an operator may not have meant it."""

import structlog

from seqserve.config import ServerConfig
from seqserve.loopback import is_loopback

_log = structlog.get_logger(__name__)


def warn_of_exposure(config: ServerConfig, *, is_encrypted: bool, has_tokens: bool) -> None:
    """Logs what the network can do.

    Args:
        config: The settings.
        is_encrypted: Whether the server speaks TLS.
        has_tokens: Whether its callers need tokens.
    """
    host = config.host
    if is_loopback(host):
        return
    if not is_encrypted:
        carried = "texts and tokens" if has_tokens else "texts"
        _log.warning(
            f"serving in the clear: the network can read and alter {carried}; set "
            "tls_certificate and tls_key, or let a proxy or a mesh do it",
            host=host,
        )
    if not has_tokens and config.tls_client_ca is None:
        _log.warning(
            "serving whoever can connect; set token_file or tls_client_ca, or let a proxy or "
            "a mesh decide who may",
            host=host,
        )
