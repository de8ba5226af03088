"""The id of a call: the caller's own, if it can stand in a log."""

import re

import pytest

from seqserve.servicers.request_id import request_id_of


@pytest.mark.parametrize("given", ["a", "4711-abc/def:9", "~" * 128, "!"])
def test_printable_ids_are_kept(given: str) -> None:
    """Also the longest, and among other keys."""
    assert request_id_of([("other", "x"), ("x-request-id", given)]) == given


@pytest.mark.parametrize(
    "given",
    [
        [],
        [""],
        ["~" * 129],
        ["two words"],
        ["line\nbreak"],
        ["tab\t"],
        ["nul\x00"],
        ["\x7f"],
        ["ä"],
        ["one", "two"],
        [b"bytes"],
    ],
)
def test_others_are_replaced(given: list[str | bytes]) -> None:
    """Each time by another one."""
    metadata = [("x-request-id", value) for value in given]
    first, second = request_id_of(metadata), request_id_of(metadata)
    assert re.fullmatch("[0-9a-f]{32}", first)
    assert first != second
