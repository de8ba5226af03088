"""A model that computes nothing any more: the server says so, drains, and ends with a failure."""

import asyncio

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.batch import Batch
from seqserve.signals import StopSignals
from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer, source

PATIENCE_SECONDS = 20.0


async def test_engine_that_keeps_failing_ends_the_server(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call is INTERNAL; then health is NOT_SERVING, and the exit code 1.

    Calls to other models that are under way are answered before.
    """

    def fail(batch: Batch, options: object) -> None:
        raise RuntimeError("device lost")

    async with serving(max_failed_steps=3) as running:
        run = asyncio.create_task(running.server.run(StopSignals()))
        engine = running.registry.find("sentence", "", None).lanes.workers[0]._engine
        monkeypatch.setattr(engine, "run", fail)
        watch = health_pb2_grpc.HealthStub(running.channel).Watch(health_pb2.HealthCheckRequest())
        states = [(await watch.read()).status]
        other = running.generation.Generate(
            generation_pb2.GenerateRequest(
                model_name="long",
                inputs=[source([7] * 20, min_new_tokens=190, max_new_tokens=199)],
            )
        )
        codes = []
        for _ in range(3):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a"]))
            codes.append(caught.value.code().name)
        states.append((await watch.read()).status)
        answer = await other
        exit_code = await asyncio.wait_for(run, PATIENCE_SECONDS)
        failed = running.metrics.registry.get_sample_value(
            "seqserve_failed_steps_total",
            {"model_name": "sentence", "model_version": "1", "phase": "embed"},
        )
    serving_states = health_pb2.HealthCheckResponse
    assert codes == ["INTERNAL"] * 3
    assert states == [serving_states.SERVING, serving_states.NOT_SERVING]
    assert len(answer.results) == 1
    assert exit_code == 1
    assert failed == 3
