"""Calls that load and unload versions: what they do, leave behind, and are refused."""

import asyncio
import contextlib
import gc
import threading
import weakref
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from live_store import (
    PATIENCE_SECONDS,
    SOURCES,
    generate,
    load_request,
    publish,
    unload_request,
)
from seqserve.v1 import model_pb2
from served_folders import write_labels
from serving import MakeServer, RunningServer, status_of


async def is_serving(running: RunningServer, service: str) -> bool:
    """What health says of a service."""
    stub = health_pb2_grpc.HealthStub(running.channel)
    request = health_pb2.HealthCheckRequest(service=f"seqserve.v1.{service}")
    return bool((await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING)


async def test_unloaded_model_leaves_nothing(
    serving: MakeServer, versions: Path, live: Path
) -> None:
    """Its threads have ended, its sessions are freed at once, its gauges are off the page."""
    publish(versions, live, "tiny")
    async with serving(models=live, allow_model_control=True) as running:
        assert (await generate(running))[0] == "2"
        model = running.registry.find("tiny", "2", None)
        engines = [weakref.ref(worker._engine) for worker in model.lanes.workers]
        del model
        gc.disable()  # what no cycle holds needs no collection
        try:
            await running.model.UnloadModel(unload_request("tiny", "2"))
        finally:
            gc.enable()
        names = [thread.name for thread in threading.enumerate()]
        assert not [name for name in names if name.startswith("worker-tiny/2")]
        labels = {"model_name": "tiny", "model_version": "2"}
        value = running.metrics.registry.get_sample_value
        assert value("seqserve_cache_budget_bytes", labels) is None
        assert value("seqserve_source_tokens_total", labels) == sum(map(len, SOURCES))
        assert [engine() for engine in engines] == [None] * len(engines)
        await running.model.LoadModel(load_request("tiny", "2"))
        assert (await generate(running))[0] == "2"
        assert value("seqserve_cache_budget_bytes", labels) is not None


async def test_last_version_can_be_unloaded_and_loaded(serving: MakeServer, live: Path) -> None:
    """Health follows: a service serves while there is a model for it."""
    async with serving(models=live, allow_model_control=True) as running:
        await running.model.UnloadModel(
            model_pb2.UnloadModelRequest(model_name="tiny", model_version="1")
        )
        assert not await is_serving(running, "GenerationService")
        assert await is_serving(running, "EncodingService")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await generate(running)
        assert status_of(caught.value) == (
            "NOT_FOUND: there is no model 'tiny'; there are: sentence"
        )
        reply = await running.model.LoadModel(
            model_pb2.LoadModelRequest(model_name="tiny", model_version="1")
        )
        assert (reply.model.name, reply.model.generation.num_beams) == ("tiny", 1)
        assert await is_serving(running, "GenerationService")
        assert (await generate(running))[0] == "1"


async def test_model_control_is_off_by_default(serving: MakeServer, live: Path) -> None:
    """The refusal names the setting."""
    async with serving(models=live) as running:
        for call in (
            running.model.LoadModel(load_request()),
            running.model.UnloadModel(unload_request()),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert status_of(caught.value) == (
                "PERMISSION_DENIED: calls may not load and unload models here "
                "(allow_model_control is off)"
            )


async def test_control_is_refused_with_the_reason(
    serving: MakeServer, versions: Path, live: Path
) -> None:
    """What is not there, is there already, cannot be served, or has a label."""
    async with serving(models=live, allow_model_control=True) as running:
        folder = publish(versions, live, "tiny")
        (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
        write_labels(live, "sentence", stable="1")
        stub: Any = running.model
        for method, request, status in (
            (stub.LoadModel, load_request(""), "INVALID_ARGUMENT: `model_name` must not be empty"),
            (
                stub.UnloadModel,
                unload_request("tiny", ""),
                "INVALID_ARGUMENT: `model_version` must not be empty",
            ),
            (
                stub.LoadModel,
                load_request("../tiny", "1"),
                "NOT_FOUND: the store has no model '../tiny' with version '1'; it has: "
                "sentence/1, tiny/1, tiny/2",
            ),
            (
                stub.LoadModel,
                load_request(),
                "ALREADY_EXISTS: version 1 of model 'tiny' is served already",
            ),
            (
                stub.LoadModel,
                load_request("tiny", "2"),
                f"FAILED_PRECONDITION: {folder / 'tokenizer.json'} is not the file of the manifest",
            ),
            (
                stub.UnloadModel,
                unload_request("tiny", "2"),
                "NOT_FOUND: version '2' of model 'tiny' is not served",
            ),
            (
                stub.UnloadModel,
                unload_request("sentence"),
                "FAILED_PRECONDITION: version 1 of model 'sentence' is what its label 'stable' "
                "means; let the label mean another version in sentence/labels.json first",
            ),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await method(request)
            assert status_of(caught.value).startswith(status)
        assert {model.label for model in running.registry.models} == {"sentence/1", "tiny/1"}


async def test_shutdown_ends_a_load(
    serving: MakeServer, versions: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever waits for it is told, and nobody waits for the process that tries the model."""
    monkeypatch.setattr("seqserve.preflight_process._MODULE", "endless_preflight")
    async with serving(models=live, allow_model_control=True) as running:
        publish(versions, live, "tiny")
        call = asyncio.ensure_future(running.model.LoadModel(load_request("tiny", "2")))
        preflights = running.server._loader._preflights
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not preflights._running:
                await asyncio.sleep(0.005)
        await asyncio.wait_for(running.server.stop(), PATIENCE_SECONDS)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert status_of(caught.value) == (
            "UNAVAILABLE: the server is shutting down; try another replica"
        )
        assert not preflights._running


async def test_caller_that_leaves_does_not_end_a_load(
    serving: MakeServer, versions: Path, live: Path
) -> None:
    """What the server serves does not depend on a caller's patience."""
    async with serving(models=live, allow_model_control=True, preflight=False) as running:
        publish(versions, live, "tiny")
        with pytest.raises(grpc.aio.AioRpcError):
            await running.model.LoadModel(load_request("tiny", "2"), timeout=0.001)
        with contextlib.suppress(grpc.aio.AioRpcError):
            await running.model.LoadModel(load_request("tiny", "2"))
        assert (await generate(running))[0] == "2"
