"""Tokens of every scope, and the metadata of calls that bring them."""

from __future__ import annotations

from collections.abc import Sequence as Items

INFER, ADMIN, BOTH = "infer-infer-infer", "admin-admin-admin", "both-both-both-both"
Metadata = Items[tuple[str, str]]


def bearer(value: str) -> Metadata:
    """The metadata of a call with a token."""
    return [("authorization", f"Bearer {value}")]
