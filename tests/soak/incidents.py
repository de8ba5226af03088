"""What happens to a server and its callers while they are at work, when its time has come."""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import dataclasses
import itertools
import shutil
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from seqserve.v1 import model_pb2, model_pb2_grpc
from served_folders import copy_version, seal
from soak.bearer import STEADY, metadata_of
from soak.caller import Caller
from soak.callers import Callers
from soak.case import CHANGING, FULL_CASE, VERSIONS, find_case
from soak.plan import Incident, PlannedCall
from soak.running_server import RunningServer

_NUM_BURST_CALLS = 160
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 0.05
_METADATA = (metadata_of(STEADY),)
_DAMAGED_VERSION = "3"
_FAILURES = "seqserve_failed_steps_total"
_REFUSALS = 'seqserve_model_loads_total{result="refused"}'


class Incidents:
    """Makes them happen, and remembers which did."""

    def __init__(
        self, server: RunningServer, store: Path, caller: Caller, callers: Callers
    ) -> None:
        """Takes what they happen to.

        Args:
            server: The server.
            store: What it serves.
            caller: Makes the calls of bursts.
            callers: Those that are killed.
        """
        self._server = server
        self._store = store
        self._caller = caller
        self._callers = callers
        self._numbers = itertools.count()
        self.happened: list[str] = []
        self.bursts: list[tuple[float, float]] = []
        self.num_planted = 0
        self.damaged: list[str] = []
        """Versions that had to be refused."""
        self._kinds: dict[str, Callable[[Incident], Awaitable[None]]] = {
            "burst": self._burst,
            "failed batch": self._fail_batch,
            "killed caller": self._kill_caller,
            "reload by calls": self._reload_by_calls,
            "reload by the store": self._reload_by_store,
            "damaged version": self._publish_damaged,
        }

    async def run(self, incidents: list[Incident], seconds: float) -> None:
        """Has one after the other happen, each at its time or when the one before is over.

        Args:
            incidents: By their times.
            seconds: After which no kind happens that has happened before.
        """
        loop = asyncio.get_running_loop()
        started_at = loop.time()
        for incident in incidents:
            if loop.time() > started_at + seconds and incident.kind in self.happened:
                continue
            await asyncio.sleep(max(0.0, started_at + incident.at_seconds - loop.time()))
            await self._kinds[incident.kind](incident)
            self.happened.append(incident.kind)

    async def _burst(self, incident: Incident) -> None:
        """More inputs at once than the server takes; some calls are refused, some may share."""
        alone = PlannedCall(find_case(*FULL_CASE), "", 0.0, "", is_fragile=False)
        calls = (alone, alone, alone, dataclasses.replace(alone, sharing=""))
        began_at = time.time()
        async with asyncio.TaskGroup() as group:
            for _, planned in zip(range(_NUM_BURST_CALLS), itertools.cycle(calls), strict=False):
                group.create_task(self._caller.call(next(self._numbers), planned))
        self.bursts.append((began_at, time.time()))

    async def _fail_batch(self, incident: Incident) -> None:
        """Waits until it has failed: signals that come at once are one."""
        before = await self._server.read_metric(_FAILURES)
        self._server.send_signal(signal.SIGUSR1)
        self.num_planted += 1
        await self._wait_for_more(_FAILURES, before)

    async def _kill_caller(self, incident: Incident) -> None:
        await self._callers.kill(incident.choice)

    async def _reload_by_calls(self, incident: Incident) -> None:
        name, version = _choose(incident), VERSIONS[-1]
        async with grpc.aio.insecure_channel(self._server.target) as channel:
            models = model_pb2_grpc.ModelServiceStub(channel)
            await models.UnloadModel(
                model_pb2.UnloadModelRequest(model_name=name, model_version=version),
                timeout=_PATIENCE_SECONDS,
                metadata=_METADATA,
            )
            await models.LoadModel(
                model_pb2.LoadModelRequest(model_name=name, model_version=version),
                timeout=_PATIENCE_SECONDS,
                metadata=_METADATA,
            )

    async def _reload_by_store(self, incident: Incident) -> None:
        name, version = _choose(incident), VERSIONS[-1]
        folder = self._store / name / version
        hidden = self._store / name / f".hidden-{version}"
        folder.rename(hidden)
        await self._wait_until_served(name, version, is_served=False)
        hidden.rename(folder)
        await self._wait_until_served(name, version, is_served=True)

    async def _publish_damaged(self, incident: Incident) -> None:
        """A version with half a graph, which is refused, and taken away again."""
        name = _choose(incident)
        hidden = copy_version(
            self._store / name / VERSIONS[-1], self._store / ".damaged" / name / _DAMAGED_VERSION
        )
        graph = next(path for path in sorted(hidden.iterdir()) if path.suffix == ".onnx")
        graph.write_bytes(graph.read_bytes()[: graph.stat().st_size // 2])
        seal(hidden)
        before = await self._server.read_metric(_REFUSALS)
        folder = hidden.rename(self._store / name / _DAMAGED_VERSION)
        await self._wait_for_more(_REFUSALS, before)
        self.damaged.append(f"{name}/{_DAMAGED_VERSION}")
        shutil.rmtree(folder)

    async def _wait_for_more(self, metric: str, before: float) -> None:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            while await self._server.read_metric(metric) == before:
                await asyncio.sleep(_LOOK_SECONDS)

    async def _wait_until_served(self, name: str, version: str, *, is_served: bool) -> None:
        async with (
            asyncio.timeout(_PATIENCE_SECONDS),
            grpc.aio.insecure_channel(self._server.target) as channel,
        ):
            models = model_pb2_grpc.ModelServiceStub(channel)
            while True:
                reply = await models.ListModels(model_pb2.ListModelsRequest(), metadata=_METADATA)
                served = {(model.name, model.version) for model in reply.models}
                if ((name, version) in served) == is_served:
                    return
                await asyncio.sleep(_LOOK_SECONDS)


def _choose(incident: Incident) -> str:
    return CHANGING[int(incident.choice * len(CHANGING))]
