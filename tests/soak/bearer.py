"""The tokens of a soak's callers: one that may do everything, and one that may do it seldom."""

from pathlib import Path

STEADY = "steady-steady-steady"
METERED = "metered-metered-metered"
UNKNOWN = "unknown-unknown-unknown"
"""Which the server does not know."""
REQUESTS_PER_SECOND = 5
"""Of the metered token; callers make more."""
BURST = 5
_FILE = f"""
[[tokens]]
name = "steady"
value = "{STEADY}"
scopes = ["infer", "admin"]

[[tokens]]
name = "metered"
value = "{METERED}"
requests_per_second = {REQUESTS_PER_SECOND}
burst = {BURST}
"""


def write_tokens(path: Path) -> Path:
    """Writes the file that the server reads; returns its path."""
    path.write_text(_FILE, encoding="utf-8")
    return path


def metadata_of(token: str) -> tuple[str, str]:
    """What a call sends of a token."""
    return "authorization", f"Bearer {token}"
