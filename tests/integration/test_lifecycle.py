"""Start, health, metrics, reflection, and the way down."""

import asyncio
import json
import os
import re
import shutil
import signal
import socket
from pathlib import Path

import grpc
import pytest
import structlog
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from processes import free_port, read_metrics, start_process
from seqserve.config import ServerConfig
from seqserve.errors import ModelFolderError
from seqserve.manifest import MANIFEST_FILE
from seqserve.metrics import Metrics
from seqserve.registry import Registry
from seqserve.v1 import generation_pb2, generation_pb2_grpc, model_pb2
from serving import MakeServer, source


async def test_health_is_per_service_on_both_ports(serving: MakeServer) -> None:
    """Both ports answer; a service without a model is NOT_SERVING, an unknown one NOT_FOUND."""
    async with serving() as running:
        for port in (running.ports.grpc, running.ports.health):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                for name in ("", "seqserve.v1.GenerationService", "seqserve.v1.EncodingService"):
                    reply = await stub.Check(health_pb2.HealthCheckRequest(service=name))
                    assert reply.status == health_pb2.HealthCheckResponse.SERVING
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await stub.Check(health_pb2.HealthCheckRequest(service="nope"))
                assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(serving: MakeServer) -> None:
    """What grpcurl needs."""
    async with serving() as running:
        stub = reflection_pb2_grpc.ServerReflectionStub(running.channel)
        stream = stub.ServerReflectionInfo()
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        reply = await stream.read()
        await stream.done_writing()
        names = {service.name for service in reply.list_services_response.service}
    assert "seqserve.v1.GenerationService" in names
    assert "grpc.health.v1.Health" in names


async def test_metrics_page_counts_requests_and_tokens(serving: MakeServer) -> None:
    """The page that Prometheus scrapes shows what was just done."""
    async with serving() as running:
        await running.generation.Generate(
            generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 1])])
        )
        page = await read_metrics(running.ports.metrics)
    assert re.search(
        r'seqserve_requests_total\{code="OK",method="/seqserve.v1.GenerationService/Generate",'
        r'model_name="tiny",model_version="1",reason=""\} 1',
        page,
    )
    assert 'seqserve_source_tokens_total{model_name="tiny",model_version="1"} 3.0' in page
    assert "process_resident_memory_bytes" in page


async def test_sigterm_answers_all_accepted_work_and_exits_0(store: Path) -> None:
    """Health turns at once, accepted calls finish, new ones are refused, the exit code is 0."""
    process = await asyncio.to_thread(
        start_process, store, "--max-batch-size", "4", "--max-num-beams", "4"
    )
    assert process.stdout is not None
    line = await asyncio.to_thread(process.stdout.readline)
    match = re.search(r"grpc=(\S+) .*metrics=\S+:(\d+)", line)
    assert match, line
    async with grpc.aio.insecure_channel(match[1]) as channel:
        stub = generation_pb2_grpc.GenerationServiceStub(channel)
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        first = await watch.read()
        assert first.status == health_pb2.HealthCheckResponse.SERVING
        calls = [
            stub.Generate(
                generation_pb2.GenerateRequest(
                    model_name="tiny", inputs=[source([7] * 20, num_beams=4)] * 20
                )
            )
            for _ in range(10)
        ]
        in_flight = 'seqserve_requests_in_flight{method="/seqserve.v1.GenerationService/Generate"}'
        while f"{in_flight} 10.0" not in await read_metrics(int(match[2])):
            assert not any(call.done() for call in calls), "too fast to be interrupted"
        process.send_signal(signal.SIGTERM)
        second = await watch.read()
        assert second.status == health_pb2.HealthCheckResponse.NOT_SERVING
        replies = await asyncio.gather(*calls)
    assert [len(reply.results) for reply in replies] == [20] * 10
    process.send_signal(signal.SIGTERM)  # an impatient second one changes nothing
    _, errors = await asyncio.to_thread(process.communicate, timeout=20)
    assert process.returncode == 0, errors


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_while_models_are_opened_exits_0(
    store: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """The process ends in the middle of a model, says so in the log, and is no failure."""
    copy = tmp_path / "store"
    shutil.copytree(store / "tiny", copy / "tiny")
    (copy / "zebra" / "1").mkdir(parents=True)
    os.mkfifo(copy / "zebra" / "1" / "seqserve.json")  # whoever opens it waits for a writer
    process = start_process(copy)
    assert process.stderr is not None
    line = process.stderr.readline()
    process.send_signal(number)
    try:
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()  # a process that did not end would wait for the writer for ever
    assert '"model": "tiny/1"' in line, line
    assert process.returncode == 0, errors
    assert f'"signal": "{number.name}", "event": "stopped while loading models"' in errors
    assert (output, errors.count("\n")) == ("", 1)


def test_health_before_models_are_open(store: Path, tmp_path: Path) -> None:
    """The process lives and no service serves; calls are UNAVAILABLE."""
    copy = tmp_path / "store"
    shutil.copytree(store / "tiny", copy / "tiny")
    (copy / "zebra" / "1").mkdir(parents=True)
    os.mkfifo(copy / "zebra" / "1" / "seqserve.json")  # whoever opens it waits for a writer
    port, health_port = free_port(), free_port()
    process = start_process(
        copy, "--no-preflight", "--port", str(port), "--health-port", str(health_port)
    )
    try:
        assert process.stderr is not None
        assert '"model": "tiny/1"' in process.stderr.readline()
        with grpc.insecure_channel(f"127.0.0.1:{health_port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            states = [
                stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10.0).status
                for name in ("", "seqserve.v1.GenerationService")
            ]
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = generation_pb2_grpc.GenerationServiceStub(channel).Generate
            with pytest.raises(grpc.RpcError) as caught:
                call(generation_pb2.GenerateRequest(model_name="tiny"), timeout=10.0)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    finally:
        process.kill()
    kind = health_pb2.HealthCheckResponse
    assert states == [kind.SERVING, kind.NOT_SERVING]
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert process.returncode == 0


def test_port_in_use_is_one_line_and_exit_2(store: Path) -> None:
    """No traceback for what an operator can mend."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = start_process(store, "--port", str(port))
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "Traceback" not in errors
    assert f"port: 127.0.0.1:{port} cannot be bound" in errors


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--models", "no-such-folder"], "no-such-folder is not a folder"),
        (["--max-batch-size", "0"], "--max-batch-size: Input should be greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_one_line_and_exit_2(
    store: Path, flags: list[str], message: str
) -> None:
    """The line names what is wrong."""
    process = start_process(store, *flags)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert errors.startswith(f"error: {message}"), errors


def test_altered_model_file_is_refused_at_start(store: Path, tmp_path: Path) -> None:
    """A file that is not the one the manifest lists is never served."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    graph = copy / "tiny" / "1" / "decode.onnx"
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(bytes(data))
    process = start_process(copy)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 2
    assert "decode.onnx is not the file of the manifest" in errors


def test_model_with_more_beams_than_allowed_is_refused_at_start(
    store: Path, tmp_path: Path
) -> None:
    """Its default is never lowered; the message says what to change."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    folder = copy / "tiny" / "1"
    manifest = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
    manifest["generation"]["num_beams"] = 8
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest), encoding="utf-8")
    config = ServerConfig(models=copy, max_num_beams=4, threads=1)
    with pytest.raises(ModelFolderError) as caught:
        Registry.open(config, Metrics())
    assert str(caught.value) == (
        f"{folder} decodes with 8 beams by default, but max_num_beams is 4; raise "
        "--max-num-beams, or export the model with fewer beams"
    )
    assert Registry.open(ServerConfig(models=copy, max_num_beams=8, threads=1), Metrics()).models


async def test_model_that_depends_on_the_batch_says_so(
    serving: MakeServer, store: Path, tmp_path: Path
) -> None:
    """In the log when it is opened, and to whoever asks for the model."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    path = copy / "tiny" / "1" / MANIFEST_FILE
    manifest = json.loads(path.read_text(encoding="utf-8")) | {"is_batch_invariant": False}
    path.write_text(json.dumps(manifest), encoding="utf-8")
    with structlog.testing.capture_logs() as logs:
        async with serving(models=copy) as running:
            reply = await running.model.ListModels(model_pb2.ListModelsRequest())
    warnings = [(one["event"], one["model"]) for one in logs if one["log_level"] == "warning"]
    assert warnings == [
        ("last bits of results may depend on the batch, as the export found", "tiny/1")
    ]
    found = {model.name: model.is_batch_invariant for model in reply.models}
    assert found == {"long": True, "sentence": True, "tiny": False}
