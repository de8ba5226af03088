"""The page: one document, which a browser lets do what it must and nothing else."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib import resources

from seqserve.playground.method import METHODS
from seqserve.playground.page import SCRIPTS, read_page

DOCUMENT = read_page().body.decode()
HEADERS = dict(read_page().headers)


def policy() -> dict[str, list[str]]:
    """The directives of the page's policy."""
    parts = [part.split() for part in HEADERS["content-security-policy"].split(";")]
    return {name: values for name, *values in parts}


def content_of(tag: str) -> str:
    """What stands between a tag and its end."""
    (content,) = re.findall(rf"<{tag}\b[^>]*>(.*?)</{tag}>", DOCUMENT, re.DOTALL)
    return str(content)


def test_policy_names_the_script_and_the_style_by_their_hashes() -> None:
    """No others run, nothing is fetched from elsewhere, and text never becomes markup."""
    hashes = {
        tag: base64.b64encode(hashlib.sha256(content_of(tag).encode()).digest()).decode()
        for tag in ("script", "style")
    }
    assert policy() == {
        "default-src": ["'none'"],
        "script-src": [f"'sha256-{hashes['script']}'"],
        "style-src": [f"'sha256-{hashes['style']}'"],
        "img-src": ["data:"],
        "connect-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
        "require-trusted-types-for": ["'script'"],
        "trusted-types": ["'none'"],
    }


def test_document_names_no_other_place() -> None:
    """Neither address nor file; the namespace of a drawing is a name."""
    places = set(re.findall(r"[a-z]+://[^\s'\"]+", DOCUMENT))
    assert places == {"http://www.w3.org/2000/svg"}
    assert re.findall(r"\b(?:src|href)=\"(?!data:)", DOCUMENT) == []
    assert "@import" not in DOCUMENT
    assert "url(" not in DOCUMENT


def test_document_has_no_handlers_and_styles_in_its_tags() -> None:
    """The policy would stop them."""
    markup = re.sub(r"<(script|style)\b.*?</\1>", "", DOCUMENT, flags=re.DOTALL)
    assert re.findall(r"\s(?:on\w+|style)=", markup) == []
    assert "innerHTML" not in DOCUMENT
    assert "eval(" not in DOCUMENT


def test_every_script_is_in_the_document_once() -> None:
    """No file is forgotten, none is there that nobody reads."""
    folder = resources.files("seqserve.playground") / "scripts"
    assert sorted(f"{name}.js" for name in SCRIPTS) == sorted(one.name for one in folder.iterdir())
    assert "/* scripts */" not in DOCUMENT
    assert "/* style.css */" not in DOCUMENT


def test_page_calls_what_it_may_and_nothing_is_allowed_in_vain() -> None:
    """The methods of the scripts are those of the server."""
    found = set(re.findall(r'"((?:Model|Generation|Attention)Service/\w+)"', DOCUMENT))
    found |= {f"EncodingService/{name}" for name in re.findall(r'predict\("(\w+)"', DOCUMENT)}
    found |= set(re.findall(r'"(EncodingService/\w+)"', DOCUMENT))
    assert {f"/api/seqserve.v1.{name}" for name in found} == set(METHODS)


def test_page_is_kept_out_of_frames_and_of_caches() -> None:
    """Nobody lays it under a page of their own."""
    assert HEADERS["x-frame-options"] == "DENY"
    assert HEADERS["cross-origin-opener-policy"] == "same-origin"
