"""Versions come and go under load: no call fails, and each is answered by one version."""

import asyncio
import contextlib
import dataclasses
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from crashing_graph import plant_crash
from live_store import (
    PATIENCE_SECONDS,
    TEXT,
    embed,
    generate,
    publish,
    watch_of,
    withdraw,
)
from planted_tokenizer import plant
from seqserve.v1 import encoding_pb2, model_pb2
from served_folders import seal
from serving import MakeServer, RunningServer

NUM_CALLERS = 6
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

        def wait(text: str) -> None:
            arrived.set()
            assert opened.wait(PATIENCE_SECONDS)

        plant(monkeypatch, tokenizer, wait)
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
