"""Bearer tokens: who may make which call, and what those are told who may not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog
from google.protobuf.descriptor import MethodDescriptor
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from bearer_metadata import ADMIN, BOTH, INFER, Metadata, bearer
from seqserve import access
from seqserve.client import AsyncClient, CallError
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.servicers.authentication import scopes_for
from seqserve.v1 import attention_pb2, encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer

MODEL = "/seqserve.v1.ModelService/"
INFERENCE = "/inference.GRPCInferenceService/"
OF_ALL = {
    *(f"{MODEL}{name}" for name in ("ListModels", "GetModel")),
    *(f"{INFERENCE}Server{name}" for name in ("Live", "Ready", "Metadata")),
    *(f"{INFERENCE}Model{name}" for name in ("Ready", "Metadata", "Statistics")),
    f"{INFERENCE}RepositoryIndex",
}
METHODS: list[MethodDescriptor] = [
    *(
        method
        for module in (
            generation_pb2,
            encoding_pb2,
            attention_pb2,
            model_pb2,
            open_inference_pb2,
        )
        for service in module.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ),
    *reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"].methods,
]


def path_of(method: MethodDescriptor) -> str:
    """As it stands in a call."""
    assert method.containing_service is not None
    return f"/{method.containing_service.full_name}/{method.name}"


async def call(
    channel: grpc.aio.Channel, method: MethodDescriptor, metadata: Metadata
) -> tuple[str, str]:
    """Code and text of a call with an empty message, of whatever arity."""
    arity = f"{_number(method.client_streaming)}_{_number(method.server_streaming)}"
    made: Any = getattr(channel, arity)(path_of(method), request_serializer=bytes)
    message: Any = iter([b""]) if method.client_streaming else b""
    try:
        started = made(message, metadata=metadata, timeout=20)
        if method.server_streaming:
            async for _ in started:
                pass
        else:
            await started
    except grpc.aio.AioRpcError as error:
        return error.code().name, error.details() or ""
    return "OK", ""


def _number(is_streaming: bool) -> str:
    return "stream" if is_streaming else "unary"


REFUSED: list[tuple[Metadata, str]] = [
    ([], "this server wants a token: "),
    ([("authorization", "")], "the metadata key `authorization` holds no bearer token: "),
    ([("authorization", INFER)], "the metadata key `authorization` holds no bearer token: "),
    (
        [("authorization", f"Basic {INFER}")],
        "the metadata key `authorization` holds no bearer token: ",
    ),
    ([*bearer(INFER), *bearer(INFER)], "the metadata key `authorization` was given 2 times: "),
    ([*bearer(INFER), *bearer("x")], "the metadata key `authorization` was given 2 times: "),
    (bearer("x" * 32), "the token that was sent is not one of this server's"),
    (bearer(INFER[:-1]), "the token that was sent is not one of this server's"),
    (bearer(""), "the token that was sent is not one of this server's"),
]


@pytest.mark.parametrize(("metadata", "message"), REFUSED)
async def test_calls_without_a_known_token_are_refused(
    serving: MakeServer, token_file: Path, metadata: Metadata, message: str
) -> None:
    """All of them, of every arity, reflection among them; the text says what to send."""
    async with serving(token_file=token_file) as running:
        for method in METHODS:
            code, text = await call(running.channel, method, metadata)
            assert (code, text.startswith(message)) == ("UNAUTHENTICATED", True), (method, text)
            assert text.endswith(
                "send the metadata key `authorization` once, with `Bearer TOKEN`"
            ) or ("not one of" in text)
        assert running.num_outstanding == 0


async def test_tokens_open_what_their_scopes_name(serving: MakeServer, token_file: Path) -> None:
    """An administrator's token is not for inference, but what is served may be looked at."""
    async with serving(token_file=token_file, allow_model_control=True) as running:
        for method in METHODS:
            path = path_of(method)
            is_of_all = path in OF_ALL or "reflection" in path
            is_of_admins = path.endswith(("LoadModel", "UnloadModel", "ModelLoad", "ModelUnload"))
            for token, is_open, scope, own in (
                (INFER, not is_of_admins, "admin", "infer"),
                (BOTH, True, "", ""),
                (ADMIN, is_of_all or is_of_admins, "infer", "admin"),
            ):
                code, text = await call(running.channel, method, bearer(token))
                assert (code not in ("UNAUTHENTICATED", "PERMISSION_DENIED")) is is_open, path
                if not is_open:
                    assert (code, text) == (
                        "PERMISSION_DENIED",
                        f"this call needs a token with the scope {scope}, but yours has: {own}",
                    )


@pytest.mark.parametrize(
    ("method", "scopes"),
    [
        ("/seqserve.v1.ModelService/LoadModel", {"admin"}),
        ("/seqserve.v1.ModelService/UnloadModel", {"admin"}),
        ("/inference.GRPCInferenceService/RepositoryModelLoad", {"admin"}),
        ("/inference.GRPCInferenceService/RepositoryModelUnload", {"admin"}),
        ("/inference.GRPCInferenceService/ModelInfer", {"infer"}),
        ("/seqserve.v1.GenerationService/Generate", {"infer"}),
        ("/grpc.channelz.v1.Channelz/GetServers", {"admin"}),
        ("/somebody.Service/Call", {"admin"}),
        ("/seqserve.v1.ModelService/ListModels", {"admin", "infer"}),
    ],
)
def test_what_changes_the_server_is_for_administrators(method: str, scopes: set[str]) -> None:
    """And so is what nobody thought of."""
    assert scopes_for(method) == scopes


async def test_health_is_open_on_both_ports(serving: MakeServer, token_file: Path) -> None:
    """Probes have no tokens; watches are open, too."""
    async with serving(token_file=token_file) as running:
        for port in (running.ports.grpc, running.ports.health):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                stub = health_pb2_grpc.HealthStub(channel)
                reply = await stub.Check(health_pb2.HealthCheckRequest())
                assert reply.status == health_pb2.HealthCheckResponse.SERVING
                watch = stub.Watch(health_pb2.HealthCheckRequest())
                assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
                watch.cancel()


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", "BEARER  "])
async def test_scheme_may_be_written_in_any_case(
    serving: MakeServer, token_file: Path, scheme: str
) -> None:
    """As in HTTP; more than one space does no harm."""
    async with serving(token_file=token_file) as running:
        await running.model.ListModels(
            model_pb2.ListModelsRequest(), metadata=[("authorization", f"{scheme}{INFER}")]
        )


async def test_refusals_have_details_metrics_and_a_line_in_the_log(
    serving: MakeServer, token_file: Path
) -> None:
    """Like any other; the log names a token that was let in, and shows none."""
    with structlog.testing.capture_logs() as logs:
        async with serving(token_file=token_file) as running:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.model.ListModels(
                    model_pb2.ListModelsRequest(), metadata=bearer("wrong-token-value")
                )
            await running.model.ListModels(model_pb2.ListModelsRequest(), metadata=bearer(INFER))
            method = f"{MODEL}ListModels"
            counted = {
                code: running.count_calls(code, method) for code in ("UNAUTHENTICATED", "OK")
            }
    assert counted == {"UNAUTHENTICATED": 1, "OK": 1}
    trailers = dict(caught.value.trailing_metadata() or ())
    rich = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    assert info.reason == "UnauthenticatedError"
    calls = [log for log in logs if log["event"] == "call"]
    assert [(log["code"], log.get("token_name")) for log in calls] == [
        ("UNAUTHENTICATED", None),
        ("OK", "search"),
    ]
    assert info.metadata["request_id"] == trailers["x-request-id"]
    assert INFER not in repr(logs)
    assert "wrong-token-value" not in repr(logs)


async def test_replaced_tokens_count_without_a_restart(
    serving: MakeServer, token_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On open connections, too."""
    monkeypatch.setattr(access, "_CHECK_SECONDS", 0.0)
    replaced = token_file.with_suffix(".new")
    replaced.write_text('[[tokens]]\nname = "new"\nvalue = "another-token-value"\n')
    request = model_pb2.ListModelsRequest()
    async with serving(token_file=token_file) as running:
        await running.model.ListModels(request, metadata=bearer(INFER))
        os.replace(replaced, token_file)
        await running.model.ListModels(request, metadata=bearer("another-token-value"))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.model.ListModels(request, metadata=bearer(INFER))
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_token_of_the_settings_is_that_of_the_client(serving: MakeServer) -> None:
    """The one variable that both sides read; it may do everything."""
    value = "0123456789abcdef"
    async with serving(token=value) as running:
        target = f"127.0.0.1:{running.ports.grpc}"
        async with AsyncClient(target, token=value) as client:
            assert (await client.embed("a b")).vectors.shape[0] == 1
        async with AsyncClient(target) as client:
            with pytest.raises(CallError, match="UNAUTHENTICATED: this server wants a token"):
                await client.embed("a b")
            assert await client.is_ready()


async def test_unknown_methods_are_unimplemented(serving: MakeServer, token_file: Path) -> None:
    """With or without a token: there is nothing to protect."""
    async with serving(token_file=token_file) as running:
        for metadata in ([], bearer(INFER)):
            missing: Any = running.channel.unary_unary("/seqserve.v1.ModelService/Nothing")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await missing(b"", metadata=metadata)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
