"""The page: its parts put together, and what a browser may do with it.

Everything is within the one document, so that it works where no other server can be reached; the
policy names its style and its script by their hashes and allows no others, no other origin, and
none of the ways in which text becomes markup or code.

Source: Content Security Policy level 3, https://www.w3.org/TR/CSP3, and Trusted Types.
"""

import base64
import dataclasses
import hashlib
from importlib import resources

SCRIPTS = (
    *("element", "api", "token_text", "heat_map", "attention_view", "generation_view"),
    *("similarity_view", "prediction_views", "playground"),
)
"""In the order in which they are read: each uses those before it."""
_STYLE_MARK, _SCRIPT_MARK = "/* style.css */", "/* scripts */"
"""Where the document has places for them."""


@dataclasses.dataclass(frozen=True, slots=True)
class Page:
    """What a browser gets."""

    body: bytes
    headers: tuple[tuple[str, str], ...]


def read_page() -> Page:
    """Puts the page together from the files of this package."""
    folder = resources.files(__package__)
    style = (folder / "style.css").read_text(encoding="utf-8")
    script = "\n".join(
        (folder / "scripts" / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS
    )
    document = (folder / "page.html").read_text(encoding="utf-8")
    body = document.replace(_STYLE_MARK, style).replace(_SCRIPT_MARK, script)
    policy = (
        "default-src 'none'",
        f"script-src '{_hash(script)}'",
        f"style-src '{_hash(style)}'",
        "img-src data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
    headers = (
        ("content-type", "text/html; charset=utf-8"),
        ("content-security-policy", "; ".join(policy)),
        ("cross-origin-opener-policy", "same-origin"),
        ("permissions-policy", "camera=(), geolocation=(), microphone=()"),
        ("x-frame-options", "DENY"),
    )
    return Page(body.encode(), headers)


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"sha256-{digest}"
