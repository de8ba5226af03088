"""How the process ends: in time, with the code that is documented, and with one line at most."""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from processes import read_metrics, start_process, wait_until_ready
from seqserve.v1 import generation_pb2, generation_pb2_grpc
from served_folders import copy_version, seal
from serving import source

PATIENCE_SECONDS = 30.0
FLAGS = ("--threads", "1", "--no-preflight")
SLOW = generation_pb2.GenerateRequest(
    model_name="long", inputs=[source([7] * 20, min_new_tokens=190, max_new_tokens=199)] * 200
)
IN_FLIGHT = 'seqserve_requests_in_flight{method="/seqserve.v1.GenerationService/Generate"}'


async def test_idle_server_with_a_watcher_ends_within_a_second(store: Path) -> None:
    """The watcher hears NOT_SERVING, and then the end of its stream."""
    process = await asyncio.to_thread(start_process, store, *FLAGS)
    ports = await wait_until_ready(process)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        states = [(await watch.read()).status]
        began_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        while (reply := await watch.read()) is not grpc.aio.EOF:
            states.append(reply.status)
        _, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
        seconds = time.monotonic() - began_at
    kind = health_pb2.HealthCheckResponse
    assert states == [kind.SERVING, kind.NOT_SERVING]
    assert process.returncode == 0, errors
    assert seconds < 1


async def test_work_longer_than_the_drain_is_told_in_time(store: Path) -> None:
    """UNAVAILABLE for all of it; the process ends a second after the drain at most, with 0.

    A second signal meanwhile changes nothing, and who connects anew gets UNAVAILABLE.
    """
    drain_seconds = 2
    process = await asyncio.to_thread(
        start_process,
        store,
        *(*FLAGS, "--drain-seconds", str(drain_seconds), "--max-batch-size", "4"),
        *("--max-num-beams", "4"),
    )
    ports = await wait_until_ready(process)
    address = f"127.0.0.1:{ports.grpc}"
    async with grpc.aio.insecure_channel(address) as channel:
        calls = [generation_pb2_grpc.GenerationServiceStub(channel).Generate(SLOW) for _ in "abc"]
        while f"{IN_FLIGHT} 3.0" not in await read_metrics(ports.metrics):
            assert not any(call.done() for call in calls), "too fast to be interrupted"
        began_at = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(1.5)  # beyond the moment in which calls are still taken
        process.send_signal(signal.SIGTERM)
        async with grpc.aio.insecure_channel(address) as other:
            late = generation_pb2_grpc.GenerationServiceStub(other).Generate(SLOW)
            ends = await asyncio.gather(*calls, late, return_exceptions=True)
        _, errors = await asyncio.to_thread(process.communicate, timeout=PATIENCE_SECONDS)
        seconds = time.monotonic() - began_at
    assert process.returncode == 0, errors
    assert [end.code() for end in ends if isinstance(end, grpc.aio.AioRpcError)] == [
        grpc.StatusCode.UNAVAILABLE
    ] * 4
    assert drain_seconds <= seconds < drain_seconds + 1


async def test_two_servers_never_share_a_port(store: Path) -> None:
    """The second ends with 2 and one line; the first serves on."""
    first = await asyncio.to_thread(start_process, store, *FLAGS)
    ports = await wait_until_ready(first)
    second = await asyncio.to_thread(start_process, store, *FLAGS, "--port", str(ports.grpc))
    _, errors = await asyncio.to_thread(second.communicate, timeout=PATIENCE_SECONDS)
    last = errors.splitlines()[-1]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    first.send_signal(signal.SIGTERM)
    await asyncio.to_thread(first.communicate, timeout=PATIENCE_SECONDS)
    assert second.returncode == 2
    assert last == (
        f"error: port: 127.0.0.1:{ports.grpc} cannot be bound; another process may be using it"
    )
    assert "Traceback" not in errors
    assert reply.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: data[: len(data) // 2],
        lambda data: random.Random(1).randbytes(len(data)),
        lambda data: b"",
        None,
    ],
    ids=["truncated", "random", "empty", "absent"],
)
def test_damaged_models_are_one_line_and_exit_2(
    store: Path, tmp_path: Path, spoil: Callable[[bytes], bytes] | None
) -> None:
    """The line names the file; there is no traceback."""
    folder = copy_version(store / "tiny" / "1", tmp_path / "store" / "tiny" / "1")
    graph = folder / "decode.onnx"
    if spoil is None:
        graph.unlink()
    else:
        graph.write_bytes(spoil(graph.read_bytes()))
        seal(folder)
    process = start_process(tmp_path / "store", "--threads", "1")
    output, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert (process.returncode, output) == (2, "")
    assert errors.startswith(f"error: {graph} ")
    assert errors.count("\n") == 1


async def test_server_whose_log_nobody_reads_goes_on(store: Path) -> None:
    """Its calls are answered, and it ends with 0."""
    process = await asyncio.to_thread(start_process, store, *FLAGS)
    ports = await wait_until_ready(process)
    assert process.stderr is not None
    process.stderr.close()
    request = generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([7, 8])])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ports.grpc}") as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        for _ in range(3):
            reply = await stub.Generate(request, timeout=PATIENCE_SECONDS)
            assert len(reply.results) == 1
    process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(process.wait, PATIENCE_SECONDS) == 0
    assert process.stdout is not None
    process.stdout.close()
