"""Clients that are not ours get what ours get: the same results, statuses and details."""

from __future__ import annotations

from pathlib import Path

import pytest

from foreign_call import CALLS, check_outcome
from foreign_server import call_server, foreign_server, settle
from node_calls import call_from_node
from serving import MakeServer


async def test_calls_come_to_what_they_must(
    serving: MakeServer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each has its status, its id, and details where it was refused; nothing is left of them."""
    async with foreign_server(serving, store, tmp_path, monkeypatch) as running:
        outcomes = await call_server(running.ports.grpc)
        await settle(running)
    for call in CALLS:
        check_outcome(call, outcomes[call.name])


@pytest.mark.needs("node", "grpc-js")
async def test_node_gets_the_same(
    serving: MakeServer, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From grpc-js with messages made from our protos by proto-loader."""
    async with foreign_server(serving, store, tmp_path, monkeypatch) as running:
        expected = await call_server(running.ports.grpc)
        (found,) = await call_from_node([f"127.0.0.1:{running.ports.grpc}"], CALLS)
        await settle(running)
    assert found == expected
