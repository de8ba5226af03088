"""Replicas behind one client that balances: restarts, ends of connections, losses."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc

from balancer import Balancer
from processes import read_metrics, stop_process
from replica import NUM_CALLERS, OPTIONS, PATIENCE_SECONDS, REQUEST, Load, Replica
from seqserve.v1 import generation_pb2, generation_pb2_grpc
from serving import source


@contextlib.asynccontextmanager
async def replicas(store: Path, *flags: str) -> AsyncIterator[tuple[Replica, Replica]]:
    """Two of them, which are ended if they still run."""
    both = (Replica(store, *flags), Replica(store, *flags))
    await asyncio.gather(*(one.start() for one in both))
    try:
        yield both
    finally:
        for one in both:
            one.process.kill()
            one.process.communicate()


async def test_rolling_restart_fails_no_call(store: Path) -> None:
    """Both replicas are ended and started again, one after the other; no call is tried twice."""
    async with replicas(store) as both:
        async with Load(*(one.port for one in both)) as load:
            await load.wait_for(100)
            for one in both:
                await stop_process(one.process)
                await load.wait_for(50)
                await one.start()
                async with asyncio.timeout(PATIENCE_SECONDS):
                    while await one.count_answered() < 50:  # the client has found it again
                        await asyncio.sleep(0.05)
            await load.wait_for(200)
        assert load.failures == {}
        assert load.num_answered >= 500


async def test_ends_of_connections_spread_callers_over_replicas(store: Path) -> None:
    """Each 300 ms a connection ends without a failed call, and the next one may go elsewhere.

    The balancer learns of the second replica when all connections are to the first.
    """
    async with replicas(store, "--max-connection-age-seconds", "0.3") as (first, second):
        async with (
            Balancer(first.port) as balancer,
            Load(balancer.port, num_channels=NUM_CALLERS) as load,
        ):
            await load.wait_for(200)
            assert await second.count_answered() == 0
            balancer.backends.append(second.port)
            async with asyncio.timeout(PATIENCE_SECONDS):
                while await second.count_answered() < 300:
                    await asyncio.sleep(0.05)
        shares = [await one.count_answered() for one in (first, second)]
        assert load.failures == {}
        assert sum(shares) == load.num_answered
        assert shares[0] - 200 >= shares[1] / 4  # it has kept its own part


async def test_killed_server_comes_back_with_nothing_of_before(store: Path) -> None:
    """Calls under way are UNAVAILABLE; the same channel is served again, by an idle server."""
    replica = Replica(store, "--max-batch-size", "4", "--max-num-beams", "4")
    slow = generation_pb2.GenerateRequest(
        model_name="long", inputs=[source([7] * 20, min_new_tokens=190, max_new_tokens=199)] * 20
    )
    in_flight = 'seqserve_requests_in_flight{method="/seqserve.v1.GenerationService/Generate"}'
    await replica.start()
    try:
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{replica.port}", OPTIONS)
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        calls = [stub.Generate(slow) for _ in range(5)]
        while f"{in_flight} 5.0" not in await read_metrics(replica.ports.metrics):
            assert not any(call.done() for call in calls), "too fast to be interrupted"
        replica.process.kill()
        ends = await asyncio.gather(*calls, return_exceptions=True)
        replica.process.communicate()
        await replica.start()
        page = await read_metrics(replica.ports.metrics)
        reply = await stub.Generate(REQUEST, wait_for_ready=True, timeout=PATIENCE_SECONDS)
        await channel.close()
        await stop_process(replica.process)
    finally:
        replica.process.kill()
        replica.process.communicate()
    assert {end.code() for end in ends if isinstance(end, grpc.aio.AioRpcError)} == {
        grpc.StatusCode.UNAVAILABLE
    }
    assert len([end for end in ends if isinstance(end, grpc.aio.AioRpcError)]) == 5
    assert "seqserve_requests_total{" not in page
    for name in ("waiting_sequences", "running_sequences", "live_rows"):
        values = [line for line in page.splitlines() if line.startswith(f"seqserve_{name}{{")]
        assert all(value.endswith(" 0.0") for value in values), values
    assert len(reply.results) == 1
