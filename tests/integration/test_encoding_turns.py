"""What all calls of encoder models have in common: admission, turns, deadlines, health."""

import asyncio
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from planted_tokenizer import plant
from seqserve.batch import Batch, Outcome
from seqserve.sequence import Priority, Sequence
from seqserve.v1 import encoding_pb2
from serving import MakeServer, RunningServer, status_of

PATIENCE_SECONDS = 20.0
Call = Callable[..., Any]


def make_call(task: str, running: RunningServer, **fields: Any) -> Call:
    """A call of a task with one short input."""
    encoding = running.encoding
    match task:
        case "classify":
            inputs = [encoding_pb2.ClassifyInput(text="the cat")]
            request: Any = encoding_pb2.ClassifyRequest(inputs=inputs, **fields)
            method: Any = encoding.Classify
        case "classify_tokens":
            request = encoding_pb2.ClassifyTokensRequest(inputs=["the cat"], **fields)
            method = encoding.ClassifyTokens
        case "rerank":
            request = encoding_pb2.RerankRequest(query="a", documents=["the cat"], **fields)
            method = encoding.Rerank
        case _:
            request = encoding_pb2.FillMaskRequest(inputs=["the [MASK]"], **fields)
            method = encoding.FillMask
    return lambda **options: method(request, **options)


TASKS = ["classify", "classify_tokens", "rerank", "fill_mask"]


@pytest.mark.parametrize("task", TASKS)
async def test_priority_and_caller_reach_the_scheduler(
    task: str, heads: Path, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sequence has those of its call, and a deadline."""
    seen: list[Sequence] = []
    async with serving(models=heads) as running:
        lanes = running.registry.find(task, "", None).lanes
        whole = lanes.submit

        def keep(sequences: list[Sequence]) -> None:
            seen.extend(sequences)
            whole(sequences)

        monkeypatch.setattr(lanes, "submit", keep)
        call = make_call(task, running, priority="PRIORITY_HIGH")
        reply = await call(metadata=(("seqserve-caller", "nightly"),))
    (sequence,) = seen
    assert (sequence.priority, sequence.caller) == (Priority.HIGH, "name nightly")
    assert sequence.deadline - sequence.submitted_at == pytest.approx(60.0, abs=5.0)
    assert (reply.model.name, reply.model.version) == (task, "1")


@pytest.mark.parametrize("task", TASKS)
async def test_full_models_refuse_before_they_tokenize(
    task: str, heads: Path, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RESOURCE_EXHAUSTED at once."""
    async with serving(models=heads, max_outstanding=1, max_inputs_per_request=1) as running:
        model = running.registry.find(task, "", None)

        def split(text: str) -> object:
            raise AssertionError("a refused call was tokenized")

        plant(monkeypatch, model.source_tokenizer, split)
        with model.admission.admit(1), pytest.raises(grpc.aio.AioRpcError) as caught:
            await make_call(task, running)()
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.mark.parametrize("task", TASKS)
async def test_deadlines_end_calls_that_wait(
    task: str, heads: Path, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DEADLINE_EXCEEDED, and the place is free again."""
    opened = threading.Event()
    async with serving(models=heads) as running:
        engine = running.registry.find(task, "", None).lanes.workers[0]._engine
        whole = engine.run

        def wait(batch: Batch, *options: object) -> list[Outcome]:
            assert opened.wait(PATIENCE_SECONDS)
            return whole(batch)

        monkeypatch.setattr(engine, "run", wait)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await make_call(task, running)(timeout=0.2)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding:
                await asyncio.sleep(0)
        opened.set()


async def test_other_tasks_are_unimplemented(heads: Path, serving: MakeServer) -> None:
    """The refusal says what the model can do."""
    async with serving(models=heads) as running:
        for task in TASKS:
            other = "rerank" if task != "rerank" else "classify"
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await make_call(task, running, model_name=other)()
            assert status_of(caught.value) == (
                f"UNIMPLEMENTED: model '{other}' cannot {task}; it can: {other}"
            )


@pytest.mark.parametrize("task", TASKS)
async def test_service_serves_with_any_encoder(
    task: str, heads: Path, tmp_path: Path, serving: MakeServer
) -> None:
    """A store without a model that embeds has a healthy EncodingService."""
    shutil.copytree(heads / task, tmp_path / task)
    async with serving(models=tmp_path) as running:
        stub = health_pb2_grpc.HealthStub(running.channel)
        found = {
            service: (
                await stub.Check(
                    health_pb2.HealthCheckRequest(service=f"seqserve.v1.{service}Service")
                )
            ).status
            for service in ("Encoding", "Generation")
        }
    assert found == {
        "Encoding": health_pb2.HealthCheckResponse.SERVING,
        "Generation": health_pb2.HealthCheckResponse.NOT_SERVING,
    }
