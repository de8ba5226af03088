"""A gRPC server with canned answers, to test clients against."""

from __future__ import annotations

import threading
import time
from concurrent import futures
from typing import Any, Self

import grpc
from google.protobuf import any_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc

from canned_answers import (
    MODELS,
    TIMING,
    align,
    make_attention,
    make_result,
    make_scoring,
)
from seqserve.v1 import (
    attention_pb2_grpc,
    encoding_pb2,
    encoding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)


class Refusal:
    """A status to answer with instead of a result."""

    def __init__(
        self,
        code: grpc.StatusCode,
        message: str,
        *details: error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
        pushback_milliseconds: int | None = None,
    ) -> None:
        self.code, self.message = code, message
        packed = [any_pb2.Any() for _ in details]
        for target, detail in zip(packed, details, strict=True):
            target.Pack(detail)
        self.status = status = status_pb2.Status(
            code=code_pb2.Code.Value(code.name), message=message, details=packed
        )
        self.metadata: list[tuple[str, str | bytes]] = [
            ("grpc-status-details-bin", status.SerializeToString()),
            ("x-request-id", "request-1"),
        ]
        if pushback_milliseconds is not None:
            self.metadata.append(("grpc-retry-pushback-ms", str(pushback_milliseconds)))


class FakeServer(
    generation_pb2_grpc.GenerationServiceServicer,
    encoding_pb2_grpc.EncodingServiceServicer,
    attention_pb2_grpc.AttentionServiceServicer,
    model_pb2_grpc.ModelServiceServicer,
):
    """Answers every call; what came in is kept in ``requests``, ``metadata`` and ``arrivals``."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.arrivals: list[float] = []
        """When each call came in, on the monotonic clock."""
        self.refusals: list[Refusal | None] = []
        """Answered first, one a call; None answers."""
        self.models = list(MODELS)
        self.sparse: encoding_pb2.SparseVector | None = None
        """Every embedding, instead of a dense one, if set."""
        self.hold: threading.Event | None = None
        """Unary generation and streams wait for it, if set."""
        self.cancelled = threading.Event()
        """Set when a client leaves a stream."""
        self.health = health.HealthServicer()
        """Says SERVING for the server itself; ``set`` changes it."""
        self._server = grpc.server(futures.ThreadPoolExecutor(4))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self, self._server)
        encoding_pb2_grpc.add_EncodingServiceServicer_to_server(self, self._server)
        attention_pb2_grpc.add_AttentionServiceServicer_to_server(self, self._server)
        model_pb2_grpc.add_ModelServiceServicer_to_server(self, self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self.health, self._server)

    @property
    def target(self) -> str:
        """Its address."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.hold is not None:
            self.hold.set()
        self._server.stop(None).wait()

    def _receive(self, request: Any, context: Any) -> None:
        self.arrivals.append(time.monotonic())
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata()))
        if self.refusals:
            refusal = self.refusals.pop(0)
            if refusal is not None:
                context.set_trailing_metadata(refusal.metadata)
                context.abort(refusal.code, refusal.message)

    def Generate(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Echoes texts in upper case, two hypotheses for each."""
        self._receive(request, context)
        if self.hold is not None:
            self.hold.wait(5)
        results = [make_result(one.text or "ids", request.options) for one in request.inputs]
        if request.return_alignments:
            for one, result in zip(request.inputs, results, strict=True):
                align(result, one.text)
        return generation_pb2.GenerateResponse(
            results=results,
            model=model_pb2.ModelReference(name="fake", version="1"),
        )

    def GenerateStream(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Sends letter by letter."""
        self._receive(request, context)
        context.add_callback(self.cancelled.set)
        for index, letter in enumerate(request.input.text.upper()):
            piece = generation_pb2.GeneratePiece(text=letter, token_ids=[index])
            yield generation_pb2.GenerateStreamResponse(piece=piece)
            if self.hold is not None:
                self.hold.wait(5)
        result = make_result(request.input.text, request.options)
        yield generation_pb2.GenerateStreamResponse(result=result)

    def ScoreTargets(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One token a letter, of log-probability -1."""
        self._receive(request, context)
        return generation_pb2.ScoreTargetsResponse(
            results=[make_scoring(one) for one in request.inputs],
            model=model_pb2.ModelReference(name="fake", version="1"),
        )

    def Attend(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Takes letters for tokens; each is written from itself, three quarters of it."""
        self._receive(request, context)
        return make_attention(request)

    def Embed(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Counts letters."""
        self._receive(request, context)
        return encoding_pb2.EmbedResponse(
            embeddings=[
                encoding_pb2.Embedding(
                    values=[] if self.sparse else [len(text), 1.0],
                    sparse=self.sparse,
                    token_count=len(text),
                    truncated_token_count=3 if text == "long" else 0,
                )
                for text in request.inputs
            ]
        )

    def EmbedStream(self, requests: Any, context: Any) -> Any:  # noqa: N802
        """Counts letters; a request that holds an empty text is refused."""
        for message in requests:
            if "" in message.request.inputs:
                status = Refusal(
                    grpc.StatusCode.INVALID_ARGUMENT,
                    "`inputs[0]` must not be empty",
                    error_details_pb2.BadRequest(
                        field_violations=[
                            error_details_pb2.BadRequest.FieldViolation(
                                field="inputs[0]", description="must not be empty"
                            )
                        ]
                    ),
                ).status
                yield encoding_pb2.EmbedStreamResponse(
                    error=encoding_pb2.RequestError(
                        code=status.code, message=status.message, details=status.details
                    )
                )
            else:
                response = self.Embed(message.request, context)
                yield encoding_pb2.EmbedStreamResponse(response=response)

    def Classify(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The first letter first, the last second."""
        self._receive(request, context)
        return encoding_pb2.ClassifyResponse(
            results=[
                encoding_pb2.Classification(
                    labels=[
                        encoding_pb2.LabelScore(
                            label=one.text[index],
                            score=score,
                            logit=4 * score if request.return_logits else None,
                        )
                        for index, score in ((0, 0.75), (-1, 0.25))
                    ],
                    token_count=len(one.text),
                    truncated_token_count=3 if one.text == "long" else 0,
                    timing=TIMING,
                )
                for one in request.inputs
            ]
        )

    def ClassifyTokens(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The first letter is a place."""
        self._receive(request, context)
        return encoding_pb2.ClassifyTokensResponse(
            results=[
                encoding_pb2.TokenClassification(
                    entities=[
                        encoding_pb2.Entity(
                            label="LOC",
                            score=0.5,
                            word=text[0].lower(),
                            end_offset=1,
                            end_byte_offset=len(text[0].encode()),
                        )
                    ],
                    token_count=len(text),
                    truncated_token_count=3 if text == "long" else 0,
                    window_count=1,
                    timing=TIMING,
                )
                for text in request.inputs
            ]
        )

    def Rerank(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The last document is the best."""
        self._receive(request, context)
        return encoding_pb2.RerankResponse(
            results=[
                encoding_pb2.RankedDocument(
                    index=index,
                    score=0.5 * index,
                    document=request.documents[index] if request.return_documents else "",
                    token_count=len(request.documents[index]),
                    truncated_token_count=3 if request.documents[index] == "long" else 0,
                    timing=TIMING,
                )
                for index in reversed(range(len(request.documents)))
            ]
        )

    def FillMask(self, request: Any, context: Any) -> Any:  # noqa: N802
        """A cat."""
        self._receive(request, context)
        return encoding_pb2.FillMaskResponse(
            results=[
                encoding_pb2.MaskFilling(
                    masks=[
                        encoding_pb2.FilledMask(
                            token_index=1,
                            tokens=[
                                encoding_pb2.MaskToken(
                                    id=7,
                                    text="cat",
                                    score=0.5,
                                    sequence="a cat" if request.return_sequences else "",
                                )
                            ],
                        )
                    ],
                    token_count=len(text),
                    truncated_token_count=3 if text == "long" else 0,
                    timing=TIMING,
                )
                for text in request.inputs
            ]
        )

    def ListModels(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One of each kind."""
        self._receive(request, context)
        return model_pb2.ListModelsResponse(models=self.models)

    def GetModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The one of that name, or the first."""
        self._receive(request, context)
        named = [model for model in self.models if model.name == request.model_name]
        return model_pb2.GetModelResponse(model=[*named, *self.models][0])

    def Tokenize(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One token a letter."""
        self._receive(request, context)
        return model_pb2.TokenizeResponse(
            tokenizations=[
                model_pb2.Tokenization(
                    tokens=[
                        model_pb2.Token(
                            id=ord(letter), text=letter, start_offset=index, end_offset=index + 1
                        )
                        for index, letter in enumerate(text)
                    ]
                )
                for text in request.texts
            ]
        )

    def LoadModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        """The first model, under the name and version that were asked for."""
        self._receive(request, context)
        model = model_pb2.Model()
        model.CopyFrom(MODELS[0])
        model.name, model.version = request.model_name, request.model_version
        return model_pb2.LoadModelResponse(model=model)

    def UnloadModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        """What was asked for is gone."""
        self._receive(request, context)
        return model_pb2.UnloadModelResponse(
            model=model_pb2.ModelReference(name=request.model_name, version=request.model_version)
        )

    def Detokenize(self, request: Any, context: Any) -> Any:  # noqa: N802
        """One letter a token."""
        self._receive(request, context)
        return model_pb2.DetokenizeResponse(
            texts=["".join(map(chr, row.token_ids)) for row in request.sequences]
        )
