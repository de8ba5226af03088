"""A cache that fails to keep: what it was to keep is answered all the same."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from sharing_setting import future_of, make, sharing, tokens, wait_for


@pytest.mark.parametrize("deduplicates", [True, False])
async def test_answers_are_given_though_they_cannot_be_kept(
    monkeypatch: pytest.MonkeyPatch, deduplicates: bool
) -> None:
    """To all who wait, and to those who come later; the loop is told of the fault each time."""
    faults: list[dict[str, Any]] = []

    def fail(*_: object) -> None:
        raise MemoryError("no room for it")

    async with sharing(deduplicates=deduplicates) as setting:
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        monkeypatch.setattr(setting.cache, "keep", fail)
        setting.close_gate()
        first, second = make(), make()
        setting.submit(first, second)
        setting.engine.gate.set()
        answers = [await wait_for(one) for one in (first, second)]
        assert tokens(answers[0]) == tokens(answers[1])
        later = make()
        setting.submit(later)
        assert not future_of(later).done()
        assert tokens(await wait_for(later)) == tokens(answers[0])
        assert setting.num_computed == (2 if deduplicates else 3)
        assert len(setting.cache) == 0
    assert {str(fault["exception"]) for fault in faults} == {"no room for it"}
