"""Requests with nothing in them, of every method there is, or with nothing where something must be.

What is left out is named, in words and in the details; nobody guesses what was meant.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_reflection.v1alpha import reflection_pb2

from inference_messages import integers, request, texts
from integration.test_malformed_bytes import METHODS, call, path_of
from seqserve.inference_protocol.v2 import open_inference_pb2
from seqserve.v1 import attention_pb2, encoding_pb2, generation_pb2, model_pb2
from serving import MakeServer, RunningServer, source

PATIENCE_SECONDS = 20.0
MEANINGFUL = {
    "grpc.health.v1.Health.Check": "the whole server",
    "grpc.health.v1.Health.Watch": "the whole server",
    "inference.GRPCInferenceService.ModelStatistics": "all models",
    "inference.GRPCInferenceService.RepositoryIndex": "the whole store",
    "inference.GRPCInferenceService.ServerLive": "asks for nothing else",
    "inference.GRPCInferenceService.ServerMetadata": "asks for nothing else",
    "inference.GRPCInferenceService.ServerReady": "asks for nothing else",
    "seqserve.v1.ModelService.ListModels": "all models",
}
"""Methods whose empty request asks for something, and for what."""

Text = generation_pb2.GenerateInput
Generate = generation_pb2.GenerateRequest
Stream = generation_pb2.GenerateStreamRequest
Score = generation_pb2.ScoreTargetsRequest
Scored = generation_pb2.ScoreTargetsInput
Target = generation_pb2.Target
GENERATION, ENCODING, ATTENTION, MODEL, INFERENCE = (
    "seqserve.v1.GenerationService",
    "seqserve.v1.EncodingService",
    "seqserve.v1.AttentionService",
    "seqserve.v1.ModelService",
    "inference.GRPCInferenceService",
)
REFLECTION = "grpc.reflection.v1alpha.ServerReflection.ServerReflectionInfo"
PATHS = {method.full_name: path_of(method) for method in METHODS}
ANSWER_CLASSES = {
    f"{ENCODING}.EmbedStream": encoding_pb2.EmbedStreamResponse,
    f"{INFERENCE}.ModelStreamInfer": open_inference_pb2.ModelStreamInferResponse,
    REFLECTION: reflection_pb2.ServerReflectionResponse,
}
"""Of streams of requests, each of which is answered or refused by itself."""


def scored(**fields: Any) -> Score:
    """A request to score targets of one source."""
    return Score(model_name="tiny", inputs=[Scored(**fields)])


def embed(**fields: Any) -> encoding_pb2.EmbedStreamRequest:
    """A request of a stream."""
    return encoding_pb2.EmbedStreamRequest(request=encoding_pb2.EmbedRequest(**fields))


REFUSALS: list[tuple[str, Any, str]] = [
    (f"{GENERATION}.Generate", Generate(), "model_name"),
    (f"{GENERATION}.Generate", Generate(model_name="tiny"), "inputs"),
    (f"{GENERATION}.Generate", Generate(model_name="tiny", inputs=[Text()]), "inputs[0]"),
    (
        f"{GENERATION}.Generate",
        Generate(model_name="tiny", inputs=[Text(text="a"), Text(text="")]),
        "inputs[1].text",
    ),
    (
        f"{GENERATION}.Generate",
        Generate(model_name="tiny", inputs=[source([])]),
        "inputs[0].token_ids",
    ),
    (f"{GENERATION}.GenerateStream", Stream(), "model_name"),
    (f"{GENERATION}.GenerateStream", Stream(model_name="tiny"), "input"),
    (f"{GENERATION}.GenerateStream", Stream(model_name="tiny", input=Text(text="")), "input.text"),
    (f"{GENERATION}.ScoreTargets", Score(), "model_name"),
    (f"{GENERATION}.ScoreTargets", Score(model_name="tiny"), "inputs"),
    (f"{GENERATION}.ScoreTargets", scored(), "inputs[0].targets"),
    (f"{GENERATION}.ScoreTargets", scored(targets=[Target(text="a")]), "inputs[0]"),
    (
        f"{GENERATION}.ScoreTargets",
        scored(text="a", targets=[Target()]),
        "inputs[0].targets[0]",
    ),
    (
        f"{GENERATION}.ScoreTargets",
        scored(text="", targets=[Target(text="a")]),
        "inputs[0].text",
    ),
    (f"{ENCODING}.Embed", encoding_pb2.EmbedRequest(), "inputs"),
    (f"{ENCODING}.Embed", encoding_pb2.EmbedRequest(inputs=[""]), "inputs[0]"),
    (f"{ENCODING}.EmbedStream", encoding_pb2.EmbedStreamRequest(), "request"),
    (f"{ENCODING}.EmbedStream", embed(), "inputs"),
    (f"{ENCODING}.EmbedStream", embed(inputs=["a", ""]), "inputs[1]"),
    (f"{ENCODING}.Classify", encoding_pb2.ClassifyRequest(), "inputs"),
    (
        f"{ENCODING}.Classify",
        encoding_pb2.ClassifyRequest(inputs=[encoding_pb2.ClassifyInput()]),
        "inputs[0].text",
    ),
    (f"{ENCODING}.ClassifyTokens", encoding_pb2.ClassifyTokensRequest(), "inputs"),
    (f"{ENCODING}.ClassifyTokens", encoding_pb2.ClassifyTokensRequest(inputs=[""]), "inputs[0]"),
    (f"{ENCODING}.Rerank", encoding_pb2.RerankRequest(), "documents"),
    (f"{ENCODING}.Rerank", encoding_pb2.RerankRequest(documents=["a"]), "query"),
    (
        f"{ENCODING}.Rerank",
        encoding_pb2.RerankRequest(query="a", documents=["b", ""]),
        "documents[1]",
    ),
    (f"{ENCODING}.FillMask", encoding_pb2.FillMaskRequest(), "inputs"),
    (f"{ENCODING}.FillMask", encoding_pb2.FillMaskRequest(inputs=[""]), "inputs[0]"),
    (f"{ATTENTION}.Attend", attention_pb2.AttendRequest(), "model_name"),
    (f"{ATTENTION}.Attend", attention_pb2.AttendRequest(model_name="tiny"), "input"),
    (f"{MODEL}.GetModel", model_pb2.GetModelRequest(), "model_name"),
    (f"{MODEL}.LoadModel", model_pb2.LoadModelRequest(), "model_name"),
    (f"{MODEL}.LoadModel", model_pb2.LoadModelRequest(model_name="tiny"), "model_version"),
    (f"{MODEL}.UnloadModel", model_pb2.UnloadModelRequest(), "model_name"),
    (f"{MODEL}.UnloadModel", model_pb2.UnloadModelRequest(model_name="tiny"), "model_version"),
    (f"{MODEL}.Tokenize", model_pb2.TokenizeRequest(), "model_name"),
    (f"{MODEL}.Tokenize", model_pb2.TokenizeRequest(model_name="tiny"), "texts"),
    (f"{MODEL}.Tokenize", model_pb2.TokenizeRequest(model_name="tiny", texts=[""]), "texts[0]"),
    (f"{MODEL}.Detokenize", model_pb2.DetokenizeRequest(), "model_name"),
    (f"{MODEL}.Detokenize", model_pb2.DetokenizeRequest(model_name="tiny"), "sequences"),
    (f"{INFERENCE}.ModelInfer", open_inference_pb2.ModelInferRequest(), "model_name"),
    (f"{INFERENCE}.ModelInfer", request("tiny"), "inputs"),
    (f"{INFERENCE}.ModelInfer", request("tiny", texts(shape=[0])), "text"),
    (f"{INFERENCE}.ModelInfer", request("tiny", texts("a", "")), "text[1]"),
    (
        f"{INFERENCE}.ModelInfer",
        request("sentence", integers("input_ids", [], shape=[1, 0])),
        "input_ids",
    ),
    (f"{INFERENCE}.ModelStreamInfer", open_inference_pb2.ModelInferRequest(), "model_name"),
    (f"{INFERENCE}.ModelStreamInfer", request("tiny"), "inputs"),
    (f"{INFERENCE}.ModelStreamInfer", request("tiny", texts("")), "text"),
    (f"{INFERENCE}.ModelMetadata", open_inference_pb2.ModelMetadataRequest(), "name"),
    (f"{INFERENCE}.ModelReady", open_inference_pb2.ModelReadyRequest(), "name"),
    (
        f"{INFERENCE}.RepositoryModelLoad",
        open_inference_pb2.RepositoryModelLoadRequest(),
        "model_name",
    ),
    (
        f"{INFERENCE}.RepositoryModelUnload",
        open_inference_pb2.RepositoryModelUnloadRequest(),
        "model_name",
    ),
]
"""Method, request, and the field that is named; each method with an empty request first."""


@pytest.fixture(scope="module")
def models(store: Path, heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of every task: one of each, and two that generate."""
    models = tmp_path_factory.mktemp("models")
    for folder in (store, heads):
        shutil.copytree(folder, models, dirs_exist_ok=True)
    return models


def test_every_method_is_here() -> None:
    """Either its empty request means something, or it is refused."""
    refused = {method for method, message, _ in REFUSALS if not message.ByteSize()}
    assert refused.isdisjoint(MEANINGFUL)
    assert refused | MEANINGFUL.keys() | {REFLECTION} == PATHS.keys()


async def test_empty_requests_that_mean_something_are_answered(
    serving: MakeServer, models: Path
) -> None:
    """As what they stand for."""
    async with serving(models=models) as running:
        ends = {
            method.full_name: await call(running.channel, method, b"")
            for method in METHODS
            if method.full_name in MEANINGFUL
        }
    assert ends == dict.fromkeys(MEANINGFUL, "OK: ")


async def test_what_is_missing_is_named(serving: MakeServer, models: Path) -> None:
    """INVALID_ARGUMENT with the path of the field, in words and as google.rpc.BadRequest."""
    async with serving(models=models, allow_model_control=True) as running:
        for method, message, field in REFUSALS:
            where = f"{method} of {str(message)!r}"
            if method == f"{INFERENCE}.ModelStreamInfer":  # which has errors in words alone
                answer = await only_answer(running, method, message)
                assert words_for(field) in answer.error_message, where
            elif method == f"{ENCODING}.EmbedStream":
                answer = await only_answer(running, method, message)
                assert grpc.StatusCode.INVALID_ARGUMENT.value[0] == answer.error.code, where
                assert words_for(field) in answer.error.message, where
                assert named_in(answer.error.details) == field, where
            else:
                error = await refuse(running, method, message)
                assert error.code() is grpc.StatusCode.INVALID_ARGUMENT, where
                assert words_for(field) in (error.details() or ""), where
                trailers = dict(error.trailing_metadata() or ())
                status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
                assert named_in(status.details) == field, where
        assert running.num_outstanding == 0


async def test_empty_reflection_request_is_an_error_of_its_own(serving: MakeServer) -> None:
    """Its fields are one of several, none of which is missing more than the others."""
    async with serving() as running:
        request = reflection_pb2.ServerReflectionRequest()
        answer = await only_answer(running, REFLECTION, request)
    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]


def words_for(field: str) -> str:
    """As a message names a field; `inputs` may stand there without quotes."""
    return "inputs" if field == "inputs" else f"`{field}`"


def named_in(details: Iterable[any_pb2.Any]) -> str:
    """The field of the one violation."""
    bad_request = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad_request) for detail in details)
    (violation,) = bad_request.field_violations
    field: str = violation.field
    return field


async def refuse(running: RunningServer, method: str, message: Any) -> grpc.aio.AioRpcError:
    """What a call is refused with."""
    kind = "stream" if method.endswith("Stream") else "unary"
    make: Any = getattr(running.channel, f"unary_{kind}")
    started = make(PATHS[method], request_serializer=type(message).SerializeToString)(
        message, timeout=PATIENCE_SECONDS
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (started.read() if kind == "stream" else started)
    return caught.value


async def only_answer(running: RunningServer, method: str, message: Any) -> Any:
    """What a stream of one request is answered."""
    make: Any = running.channel.stream_stream
    started = make(
        PATHS[method],
        request_serializer=type(message).SerializeToString,
        response_deserializer=ANSWER_CLASSES[method].FromString,
    )(iter([message]), timeout=PATIENCE_SECONDS)
    (answer,) = [one async for one in started]
    return answer
