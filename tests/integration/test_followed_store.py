"""A store that is followed: versions are loaded as they appear, and labels move."""

import asyncio
from pathlib import Path

import grpc
import pytest
import structlog

from live_store import (
    PATIENCE_SECONDS,
    generate,
    publish,
    watch_of,
    withdraw,
)
from seqserve.v1 import model_pb2
from served_folders import write_labels
from serving import MakeServer, status_of


async def test_labels_move_while_the_server_runs(
    serving: MakeServer, versions: Path, live: Path
) -> None:
    """The default is what is stable; a canary is asked for; who is gone is not unloaded."""
    write_labels(live, "tiny", stable="1")
    async with serving(models=live) as running:
        watch = watch_of(running)
        await watch.look()
        publish(versions, live, "tiny")
        write_labels(live, "tiny", stable="1", canary="2")
        await watch.look()
        assert (await generate(running))[0] == "1"
        assert (await generate(running, "canary"))[0] == "2"
        assert (await generate(running, "2"))[0] == "2"
        reply = await running.model.GetModel(
            model_pb2.GetModelRequest(model_name="tiny", model_version="canary")
        )
        assert (reply.model.version, list(reply.model.labels)) == ("2", ["canary"])
        withdraw(live, "tiny")
        with structlog.testing.capture_logs() as logs:
            for _ in range(3):
                await watch.look()
        warnings = [one["reason"] for one in logs if one["log_level"] == "warning"]
        assert warnings == [
            "the folder of tiny/1 is gone, but version 1 of model 'tiny' is what its label "
            "'stable' means; let the label mean another version in tiny/labels.json first"
        ]
        write_labels(live, "tiny", stable="2")
        await watch.look()
        assert (await generate(running))[0] == "2"
        assert [model.label for model in running.registry.models] == ["sentence/1", "tiny/2"]
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(running, "canary")
        assert status_of(caught.value) == (
            "NOT_FOUND: model 'tiny' has no version 'canary'; it has: 2 (stable)"
        )


async def test_malformed_labels_change_nothing(serving: MakeServer, live: Path) -> None:
    """They are warned of once, and read again."""
    write_labels(live, "tiny", stable="1")
    async with serving(models=live) as running:
        (live / "tiny" / "labels.json").write_text('{"stable": 2}', encoding="utf-8")
        with structlog.testing.capture_logs() as logs:
            for _ in range(2):
                await watch_of(running).look()
        assert [one["event"] for one in logs] == ["labels stay as they are"]
        assert (await generate(running, "stable"))[0] == "1"


async def test_store_is_watched(serving: MakeServer, versions: Path, live: Path) -> None:
    """Without a call, as often as is set; and a store that is lost changes nothing."""
    async with serving(models=live, watch_seconds=0.01) as running:
        publish(versions, live, "tiny")
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (await generate(running))[0] != "2":
                await asyncio.sleep(0.01)
        await asyncio.to_thread(live.rename, live.parent / "lost")
        with structlog.testing.capture_logs() as logs:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not logs:
                    await asyncio.sleep(0.01)
        assert logs[0]["reason"] == f"{live} is not a folder any more"
        assert (await generate(running))[0] == "2"


async def test_shutdown_ends_a_load_that_nobody_asked_for(
    serving: MakeServer, versions: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What follows the store ends with the server, and finds no fault with that."""
    monkeypatch.setattr("seqserve.preflight_process._MODULE", "endless_preflight")
    with structlog.testing.capture_logs() as logs:
        async with serving(models=live, watch_seconds=0.01) as running:
            publish(versions, live, "tiny")
            preflights = running.server._loader._preflights
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not preflights._running:
                    await asyncio.sleep(0.005)
            await asyncio.wait_for(running.server.stop(), PATIENCE_SECONDS)
    assert not preflights._running
    assert not [one for one in logs if one["log_level"] in ("warning", "error")]
