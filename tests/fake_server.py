"""A gRPC server with canned answers, to test clients against."""

from __future__ import annotations

import threading
import time
from concurrent import futures
from typing import Any, Self

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2_grpc

from seqserve.v1 import (
    attention_pb2,
    attention_pb2_grpc,
    encoding_pb2,
    encoding_pb2_grpc,
    generation_pb2,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

TIMING = encoding_pb2.EncodingTiming(
    queue_duration=duration_pb2.Duration(nanos=1_000_000),
    encode_duration=duration_pb2.Duration(nanos=2_000_000),
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
        self.refusals: list[Refusal] = []
        """Answered first, one a call."""
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
        """The first."""
        self._receive(request, context)
        return model_pb2.GetModelResponse(model=MODELS[0])

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


MODELS = [
    model_pb2.Model(
        name="fake",
        version="1",
        tasks=[model_pb2.TASK_GENERATE],
        family="transformer",
        dtype="fp32",
        max_source_length=9,
        source_vocabulary_size=30,
        max_inputs_per_request=256,
        is_batch_invariant=True,
        source="fake-source",
        generation=model_pb2.GenerationSettings(
            max_new_tokens=8, num_beams=1, max_target_length=9, max_num_beams=4
        ),
    ),
    model_pb2.Model(
        name="vectors",
        version="2",
        tasks=[model_pb2.TASK_EMBED],
        embedding=model_pb2.EmbeddingSettings(embedding_size=2, pooling="mean", normalize=True),
    ),
]


def make_result(
    text: str, options: generation_pb2.GenerateOptions
) -> generation_pb2.GenerateResult:
    """Two hypotheses, the first with everything, the second bare; drawn with seed 99 if any."""
    result = generation_pb2.GenerateResult(
        hypotheses=[
            generation_pb2.Hypothesis(
                text=text.upper(),
                token_ids=[5, 2],
                score=-0.5,
                token_log_probabilities=[-0.25, -0.25],
                finish_reason=generation_pb2.FINISH_REASON_EOS,
            ),
            generation_pb2.Hypothesis(
                text=text, token_ids=[6], finish_reason=generation_pb2.FINISH_REASON_LENGTH
            ),
        ],
        source_token_count=len(text),
        truncated_token_count=3 if text == "long" else 0,
        seed=99 if options.do_sample else None,
    )
    result.timing.queue_duration.FromMilliseconds(1)
    result.timing.encode_duration.FromMilliseconds(2)
    result.timing.decode_duration.FromMilliseconds(3)
    return result


def align(result: generation_pb2.GenerateResult, text: str) -> None:
    """Lets each word of the first hypothesis, a token, come from the last word of a text."""
    ends = [place for place, letter in enumerate(f"{text} ") if letter == " "]
    starts = [0, *(end + 1 for end in ends[:-1])]
    tokens = [
        model_pb2.Token(id=5, text=text[start:end], start_offset=start, end_offset=end)
        for start, end in zip(starts, ends, strict=True)
    ]
    end = model_pb2.Token(id=2, text="</s>", is_special=True)
    num_words = len(tokens)
    result.hypotheses[0].alignment.CopyFrom(
        generation_pb2.Alignment(
            source_tokens=[*tokens, end],
            target_tokens=[*tokens, end],
            source_indices=[*[num_words - 1] * num_words, -1],
            weights=([0.0] * (num_words - 1) + [0.75, 0.25]) * (num_words + 1),
        )
    )


def make_attention(request: attention_pb2.AttendRequest) -> attention_pb2.AttendResponse:
    """Cross-attention of a text to itself in capitals, or to a target; none of a pair."""
    text = request.input.text
    tokens = [
        model_pb2.Token(id=ord(letter), text=letter, start_offset=place, end_offset=place + 1)
        for place, letter in enumerate(text)
    ]
    target = request.target.text or text.upper()
    rest = 0.25 / (len(text) - 1)
    return attention_pb2.AttendResponse(
        attentions=[
            attention_pb2.Attention(
                kind=attention_pb2.ATTENTION_KIND_ENCODER_SELF
                if request.input.text_pair
                else attention_pb2.ATTENTION_KIND_CROSS,
                layers=[0],
                heads=[0, 1],
                shape=[1, 1, len(target), len(text)],
                weights=[
                    0.75 if row == column else rest
                    for row in range(len(target))
                    for column in range(len(text))
                ],
            )
        ],
        source_tokens=tokens,
        target_tokens=[model_pb2.Token(id=ord(letter), text=letter) for letter in target],
        source_text=text,
        target_text=target,
        truncated_token_count=3 if request.truncate else 0,
    )


def make_scoring(one: generation_pb2.ScoreTargetsInput) -> generation_pb2.ScoreTargetsResult:
    """A score for each target of an input."""
    result = generation_pb2.ScoreTargetsResult(
        scores=[
            generation_pb2.TargetScore(
                tokens=[
                    generation_pb2.ScoredToken(id=ord(letter), text=letter, log_probability=-1.0)
                    for letter in target.text
                ],
                total_log_probability=-len(target.text),
                mean_log_probability=-1.0,
                token_count=len(target.text),
            )
            for target in one.targets
        ],
        source_token_count=len(one.text),
        truncated_token_count=3 if one.text == "long" else 0,
    )
    result.timing.queue_duration.FromMilliseconds(1)
    result.timing.encode_duration.FromMilliseconds(2)
    result.timing.decode_duration.FromMilliseconds(3)
    return result
