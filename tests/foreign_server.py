"""A server in the state that the calls of ``foreign_call`` meet: of every outcome there is one."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from foreign_call import CALLS, MAX_OUTSTANDING, NUM_TAKEN, TOKENS, Outcome, call_directly
from planted_tokenizer import plant
from serving import MakeServer, RunningServer

_PATIENCE_SECONDS = 20.0


async def call_server(port: int) -> dict[str, Outcome]:
    """What gRPC's own library gets of all calls, by their names."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        return {call.name: await call_directly(channel, call) for call in CALLS}


async def settle(running: RunningServer) -> None:
    """Waits until nothing is left of all calls, not even of those that were left."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        while running.num_in_flight or running.num_outstanding != NUM_TAKEN:
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def foreign_server(
    serving: MakeServer, store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[RunningServer]:
    """Serves.

    Some places of ``tiny`` are taken, ``long`` never answers, ``sentence`` fails at one text, and
    there is a version that cannot be loaded.
    """
    copy = folder / "store"
    shutil.copytree(store, copy)
    tokens = folder / "tokens.toml"
    tokens.write_text(TOKENS, encoding="utf-8")
    settings = {"max_outstanding": MAX_OUTSTANDING, "max_inputs_per_request": MAX_OUTSTANDING}
    async with serving(
        models=copy, token_file=tokens, allow_model_control=True, preflight=False, **settings
    ) as running:
        (copy / "tiny" / "9").mkdir()
        (copy / "tiny" / "9" / "seqserve.json").write_text("{}", encoding="utf-8")
        tiny, long, sentence = (
            running.registry.find(name, "", None) for name in ("tiny", "long", "sentence")
        )
        tokenizer = sentence.source_tokenizer

        def fail(text: str) -> None:
            if text == "fault":
                raise RuntimeError("planted")

        with monkeypatch.context() as patch, tiny.admission.admit(NUM_TAKEN):
            plant(patch, tokenizer, fail)
            patch.setattr(long.lanes, "submit", lambda sequences: None)
            yield running
