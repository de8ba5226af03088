"""Versions come and go under load: no call fails, and each is answered by one version."""

import asyncio
import contextlib
import dataclasses
import gc
import threading
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from crashing_graph import plant_crash
from seqserve.store_watch import StoreWatch
from seqserve.v1 import encoding_pb2, generation_pb2, model_pb2
from seqserve_export.exporter import export_model
from served_folders import copy_version, seal, write_labels
from serving import MakeServer, RunningServer, source, status_of
from tiny_checkpoint import make_tiny_checkpoint
from tiny_sentence_folder import make_tiny_sentence_folder

PATIENCE_SECONDS = 30.0
NUM_CALLERS = 6
SOURCES = [[5, 6, 1], [9, 4, 3, 7], [11] * 12]
TEXT = "ba be bi"


@pytest.fixture(scope="session")
def versions(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with two versions of ``tiny`` and of ``sentence``, of other weights each."""
    torch.set_num_threads(1)
    sources = tmp_path_factory.mktemp("sources")
    versions = tmp_path_factory.mktemp("versions")
    for name in ("tiny", "sentence"):
        copy_version(store / name / "1", versions / name / "1")
    export_model(make_tiny_checkpoint(sources / "tiny", 21), versions, name="tiny", version="2")
    folder = make_tiny_sentence_folder(sources / "sentence", 2)
    export_model(folder, versions, name="sentence", version="2")
    return versions


@pytest.fixture
def live(versions: Path, tmp_path: Path) -> Path:
    """A store with the first version of each model."""
    for name in ("tiny", "sentence"):
        copy_version(versions / name / "1", tmp_path / name / "1")
    return tmp_path


def publish(versions: Path, live: Path, name: str, version: str = "2") -> Path:
    """Puts a version into a live store."""
    return copy_version(versions / name / version, live / name / version)


def withdraw(live: Path, name: str, version: str = "1") -> None:
    """Takes a version out of a live store."""
    (live / name / version).rename(live / f".gone-{name}-{version}")


async def generate(running: RunningServer, version: str = "") -> tuple[str, list[list[int]]]:
    """The version that answered, and its targets."""
    reply = await running.generation.Generate(
        generation_pb2.GenerateRequest(
            model_name="tiny",
            model_version=version,
            inputs=[source(tokens, max_new_tokens=12) for tokens in SOURCES],
        )
    )
    targets = [list(result.hypotheses[0].token_ids) for result in reply.results]
    return reply.model.version, targets


async def embed(running: RunningServer, version: str = "") -> tuple[str, list[float]]:
    """The version that answered, and its vector."""
    reply = await running.encoding.Embed(
        encoding_pb2.EmbedRequest(model_name="sentence", model_version=version, inputs=[TEXT])
    )
    return reply.model.version, list(reply.embeddings[0].values)


CALLS: dict[str, Any] = {"tiny": generate, "sentence": embed}


@dataclasses.dataclass
class Load:
    """Callers who call all the time, and what they are answered."""

    running: RunningServer
    answers: list[tuple[str, str, Any]] = dataclasses.field(default_factory=list)
    """Model, version and content."""
    is_over: bool = False

    async def call(self, name: str) -> None:
        """Calls one model until it is over; a failed call ends the test."""
        while not self.is_over:
            self.answers.append((name, *await CALLS[name](self.running)))

    async def pass_answers(self, number: int) -> None:
        """Waits until every model has answered so many times more."""
        goal = {name: self.count(name) + number for name in CALLS}
        async with asyncio.timeout(PATIENCE_SECONDS):
            while any(self.count(name) < goal[name] for name in CALLS):
                await asyncio.sleep(0.005)

    def count(self, name: str) -> int:
        """Answers of a model so far."""
        return sum(answer[0] == name for answer in self.answers)


@contextlib.asynccontextmanager
async def loaded(running: RunningServer) -> AsyncIterator[Load]:
    """Callers of both models, who must not see a failure."""
    load = Load(running)
    async with asyncio.TaskGroup() as group:
        for index in range(NUM_CALLERS):
            group.create_task(load.call(list(CALLS)[index % len(CALLS)]))
        await load.pass_answers(5)
        yield load
        await load.pass_answers(5)
        load.is_over = True


def watch_of(running: RunningServer) -> StoreWatch:
    """What looks at the store, to have it look now."""
    return running.server._store_watch


async def is_serving(running: RunningServer, service: str) -> bool:
    """What health says of a service."""
    stub = health_pb2_grpc.HealthStub(running.channel)
    request = health_pb2.HealthCheckRequest(service=f"seqserve.v1.{service}")
    return bool((await stub.Check(request)).status == health_pb2.HealthCheckResponse.SERVING)


async def test_no_call_fails_while_versions_come_and_go(
    serving: MakeServer, versions: Path, live: Path
) -> None:
    """A new version becomes the default, the old one goes; every answer is that of one version."""
    async with serving(models=live) as running:
        expected = {(name, "1"): (await CALLS[name](running))[1] for name in CALLS}
        watch = watch_of(running)
        await watch.look()
        async with loaded(running) as load:
            for name in CALLS:
                publish(versions, live, name)
            await watch.look()
            await load.pass_answers(5)
            for name in CALLS:
                withdraw(live, name)
            await watch.look()
            await watch.look()
        num_served = len(load.answers)
        for name in CALLS:
            version, expected[name, "2"] = await CALLS[name](running)
            assert version == "2"
            assert expected[name, "1"] != expected[name, "2"]
        assert [model.label for model in running.registry.models] == ["sentence/2", "tiny/2"]
        value = running.metrics.registry.get_sample_value
        assert value("seqserve_model_loads_total", {"result": "loaded"}) == 2
        assert value("seqserve_model_load_duration_seconds_count") == 2
    for name, version, answer in load.answers:
        assert answer == expected[name, version]
    assert {(name, version) for name, version, _ in load.answers} == set(expected)
    assert num_served >= 30


@pytest.mark.parametrize("fault", ["damaged", "crashing"])
async def test_version_that_fails_leaves_the_others_serving(
    serving: MakeServer, versions: Path, live: Path, fault: str
) -> None:
    """It is refused, counted, and not tried again until it has changed."""
    async with serving(models=live) as running:
        watch = watch_of(running)
        folder = publish(versions, live, "tiny")
        whole = (folder / "encode.onnx").read_bytes()
        if fault == "crashing":
            plant_crash(folder)
            problem = "ended its pre-flight process with signal 11 (SIGSEGV)"
        else:
            (folder / "encode.onnx").write_bytes(whole[: len(whole) // 2])
            seal(folder)
            problem = "encode.onnx is no ONNX file, or damaged"
        with structlog.testing.capture_logs() as logs:
            async with loaded(running) as load:
                await watch.look()
                await watch.look()
        refused = [one for one in logs if one["event"] == "model refused"]
        assert [one["model"] for one in refused] == ["tiny/2"]
        assert problem in refused[0]["reason"]
        assert {version for _, version, _ in load.answers} == {"1"}
        value = running.metrics.registry.get_sample_value
        assert value("seqserve_model_loads_total", {"result": "refused"}) == 1
        (folder / "encode.onnx").write_bytes(whole)
        seal(folder)
        await watch.look()
        assert (await generate(running))[0] == "2"


async def test_requests_in_flight_finish_on_the_version_they_found(
    serving: MakeServer, versions: Path, live: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is still being tokenized when its version goes, which is waited for."""
    publish(versions, live, "sentence")
    async with serving(models=live, allow_model_control=True) as running:
        request = model_pb2.UnloadModelRequest(model_name="sentence", model_version="2")
        tokenizer = running.registry.find("sentence", "2", None).source_tokenizer
        arrived, opened = threading.Event(), threading.Event()
        whole = tokenizer.split

        def wait(text: str) -> object:
            arrived.set()
            assert opened.wait(PATIENCE_SECONDS)
            return whole(text)

        monkeypatch.setattr(tokenizer, "split", wait)
        text = " ".join([TEXT] * 600)  # long texts are tokenized in a thread
        slow = asyncio.ensure_future(
            running.encoding.Embed(
                encoding_pb2.EmbedRequest(model_name="sentence", inputs=[text], truncate=True)
            )
        )
        assert await asyncio.to_thread(arrived.wait, PATIENCE_SECONDS)
        unload = asyncio.ensure_future(running.model.UnloadModel(request))
        async with asyncio.timeout(PATIENCE_SECONDS):
            while ("sentence", "2") in running.registry.keys:
                await asyncio.sleep(0.005)
        assert (await embed(running))[0] == "1"
        assert not unload.done()
        opened.set()
        assert (await slow).model.version == "2"
        reply = await unload
        assert (reply.model.name, reply.model.version) == ("sentence", "2")


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


def load_request(name: str = "tiny", version: str = "1") -> model_pb2.LoadModelRequest:
    """A request to load."""
    return model_pb2.LoadModelRequest(model_name=name, model_version=version)


def unload_request(name: str = "tiny", version: str = "1") -> model_pb2.UnloadModelRequest:
    """A request to unload."""
    return model_pb2.UnloadModelRequest(model_name=name, model_version=version)


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
