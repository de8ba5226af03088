"""Passes of the explain graph: whose is next, when they end, and what they must not run."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import torch

from seqserve.client import AsyncClient, CallError
from seqserve.task_record import Task
from seqserve_export.exporter import export_model
from served_folders import copy_version
from serving import MakeServer, RunningServer
from slow_graph import plant_delay
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder

SHORT, LONG = "a cat", "cat " * 20


@pytest.fixture(scope="module")
def explained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with ``rerank``, which reads pairs."""
    torch.set_num_threads(1)
    source = tmp_path_factory.mktemp("sources") / "rerank"
    make_tiny_encoder_folder(source, find_variant("bert"), Task.RERANK)
    store = tmp_path_factory.mktemp("store")
    export_model(source, store, name="rerank", is_explained=True)
    return store


def connect(running: RunningServer, caller: str = "") -> AsyncClient:
    """A client of a server."""
    return AsyncClient(f"127.0.0.1:{running.ports.grpc}", caller=caller)


async def refusal(client: AsyncClient, source: str) -> tuple[str, str]:
    """Code and text of a call that fails."""
    with pytest.raises(CallError) as caught:
        await client.attend(source)
    return caught.value.code, caught.value.message


@pytest.fixture
def slow(explained: Path, tmp_path: Path) -> Path:
    """A store whose model takes many seconds to be explained for texts of more than 8 tokens."""
    folder = copy_version(explained / "rerank" / "1", tmp_path / "store" / "rerank" / "1")
    plant_delay(folder, "explain.onnx", "encoder_attentions.0")
    return folder.parents[1]


async def test_pass_ends_when_its_caller_has_gone(slow: Path, serving: MakeServer) -> None:
    """After a deadline, of the caller or the server, or a cancellation; the next has its turn."""
    async with serving(models=slow, preflight=False) as running, connect(running) as client:
        with pytest.raises(CallError, match="DEADLINE_EXCEEDED"):
            await client.attend(LONG, timeout_seconds=0.3)
        await client.attend("a cat", timeout_seconds=10)
        call = asyncio.create_task(client.attend(LONG))
        while not running.num_outstanding:
            await asyncio.sleep(0.01)
        waiting = asyncio.create_task(client.attend("a cat", timeout_seconds=20))
        # Should it have its turn first, on a slow machine, it is soon done.
        while running.num_outstanding < 2 and not waiting.done():
            await asyncio.sleep(0.01)
        call.cancel()
        assert (await waiting).encoder_self is not None
        while running.num_outstanding:
            await asyncio.sleep(0.01)
    async with (
        serving(models=slow, preflight=False, max_request_seconds=0.3) as running,
        connect(running) as client,
    ):
        code, message = await refusal(client, LONG)
        assert code == "DEADLINE_EXCEEDED"
        assert "the server's limit of 0.3 seconds (max_request_seconds) passed" in message
        assert (await client.attend("a cat")).encoder_self is not None


async def test_files_that_changed_since_are_not_opened(
    explained: Path, tmp_path: Path, serving: MakeServer
) -> None:
    """Neither the graph nor its weights; the other calls of the model go on."""
    for name in ("explain.onnx", "weights.data"):
        store = tmp_path / name
        folder = copy_version(explained / "rerank" / "1", store / "rerank" / "1")
        async with serving(models=store) as running, connect(running) as client:
            (folder / name).unlink()
            (folder / name).write_bytes(b"other")
            code, message = await refusal(client, SHORT)
            assert code == "FAILED_PRECONDITION"
            assert message.endswith("its files have changed since; load the version again")
            assert str(tmp_path) not in message
            assert await client.rerank(SHORT, ["a dog"])


async def test_callers_share_the_turns(slow: Path, serving: MakeServer) -> None:
    """Who has asked for one pass does not wait for all of another one's; urgent ones are first."""
    done: list[str] = []
    async with (
        serving(models=slow, preflight=False) as running,
        connect(running, "bulk") as bulk,
        connect(running, "single") as single,
    ):

        async def ask(name: str, client: AsyncClient, **options: Any) -> None:
            await client.attend(SHORT, **options)
            done.append(name)

        def count_waiting() -> int:
            (model,) = running.registry.models
            assert model.explainer is not None
            return model.explainer.count_waiting()

        async def begin(*asking: Any) -> list[asyncio.Task[None]]:
            """Starts calls one after the other, each when the one before waits."""
            tasks = []
            for one in asking:
                number = count_waiting()
                tasks.append(asyncio.create_task(one))
                async with asyncio.timeout(20):
                    while count_waiting() == number:
                        await asyncio.sleep(0.001)
            return tasks

        await bulk.attend(SHORT)  # opens the graph
        first = asyncio.create_task(bulk.attend(LONG))
        while not running.num_outstanding:
            await asyncio.sleep(0.001)
        waiting = await begin(
            *(ask(f"bulk {number}", bulk) for number in range(4)),
            ask("single", single),
            ask("urgent", single, priority="high"),
        )
        assert running.metrics.registry.get_sample_value(
            "seqserve_waiting_explanations", {"model_name": "rerank", "model_version": "1"}
        ) == len(waiting)
        first.cancel()
        await asyncio.gather(*waiting)
        assert count_waiting() == 0
    assert done[0] == "urgent"
    assert done.index("single") <= 2
