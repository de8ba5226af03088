"""Whether an address leaves this machine."""

import contextlib
import ipaddress


def is_loopback(host: str) -> bool:
    """Whether a host, without a port, is certain to be this machine; names but one are not."""
    if host == "localhost":
        return True
    with contextlib.suppress(ValueError):  # a name
        return ipaddress.ip_address(host).is_loopback
    return False
