"""The client that awaits."""

from collections.abc import Sequence as Items
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from seqserve.client.arguments import Languages, Priority, Source
from seqserve.client.async_encoding_calls import AsyncEncodingCalls
from seqserve.client.attention_calls import AsyncAttentionCalls
from seqserve.client.channel import Connection
from seqserve.client.embedding_messages import EmbedOptions, embed_request, to_embeddings
from seqserve.client.errors import to_call_error
from seqserve.client.generation_messages import (
    GenerateOptions,
    generate_request,
    generate_stream_request,
    to_generation,
)
from seqserve.client.model_control import AsyncModelControl
from seqserve.client.model_info import ModelInfo
from seqserve.client.model_messages import (
    detokenize_request,
    to_models,
    to_tokens,
    tokenize_request,
)
from seqserve.client.results import Embeddings, Generation, Scoring, Token
from seqserve.client.scoring_messages import Targets, score_request, to_scoring
from seqserve.client.stream import AsyncGenerationStream
from seqserve.v1 import (
    attention_pb2_grpc,
    encoding_pb2_grpc,
    generation_pb2_grpc,
    model_pb2,
    model_pb2_grpc,
)

_Response = TypeVar("_Response")


class AsyncClient(AsyncEncodingCalls, AsyncAttentionCalls, AsyncModelControl):
    """A connection to a server, or to several behind one name. For one event loop.

    Every method raises :class:`CallError` when the call fails, and takes ``timeout_seconds`` to
    replace the client's own.
    """

    def __init__(
        self, target: str = "localhost:50051", *, timeout_seconds: float = 60.0, **connection: Any
    ) -> None:
        """Connects lazily.

        Args:
            target: ``host:port``, or ``dns:///name:port`` for round robin over a name's addresses.
            timeout_seconds: Deadline of each call.
            connection: Further fields of :class:`Connection`: token, tls, certificates, retries.

        Raises:
            ValueError: A setting would be ignored, or a token sent in clear to another machine.
        """
        settings = Connection(target=target, **connection)
        self._timeout_seconds = timeout_seconds
        self._metadata = settings.metadata()
        options = settings.options()
        self._channel = (
            grpc.aio.secure_channel(target, settings.credentials(), options)
            if settings.tls
            else grpc.aio.insecure_channel(target, options)
        )
        self._generation = generation_pb2_grpc.GenerationServiceStub(self._channel)
        self._encoding = encoding_pb2_grpc.EncodingServiceStub(self._channel)
        self._attention = attention_pb2_grpc.AttentionServiceStub(self._channel)
        self._models = model_pb2_grpc.ModelServiceStub(self._channel)
        self._health = health_pb2_grpc.HealthStub(self._channel)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends the connection; calls under way are cancelled."""
        await self._channel.close()

    async def generate(
        self,
        inputs: Source | Items[Source],
        *,
        model: str = "",
        version: str = "",
        source_language: Languages = "",
        target_language: Languages = "",
        target_prefix: Source | Items[Source] = "",
        truncate: bool = False,
        return_alignments: bool = False,
        priority: Priority = "",
        timeout_seconds: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> list[Generation]:
        """Generates from one text, or from several texts or lists of token ids, in their order.

        A ``target_prefix`` is one text for all inputs, or a text or token ids for each, empty for
        none; languages likewise.
        """
        request = generate_request(
            inputs,
            model,
            version,
            truncate,
            options,
            source_language,
            target_language,
            priority,
            target_prefix,
            return_alignments,
        )
        response = await self._call(self._generation.Generate, request, timeout_seconds)
        return [to_generation(result) for result in response.results]

    def generate_stream(
        self,
        source: Source,
        *,
        model: str = "",
        version: str = "",
        source_language: str = "",
        target_language: str = "",
        target_prefix: Source = "",
        truncate: bool = False,
        return_alignments: bool = False,
        priority: Priority = "",
        timeout_seconds: float | None = None,
        **options: Unpack[GenerateOptions],
    ) -> AsyncGenerationStream:
        """Generates from one input, piece by piece."""
        request = generate_stream_request(
            source,
            model,
            version,
            truncate,
            options,
            source_language,
            target_language,
            priority,
            target_prefix,
            return_alignments,
        )
        call = self._generation.GenerateStream(
            request, timeout=self._timeout(timeout_seconds), metadata=self._metadata
        )
        return AsyncGenerationStream(call)

    async def score(
        self,
        inputs: Source | Items[Source],
        targets: Targets | Items[Targets],
        *,
        model: str = "",
        version: str = "",
        source_language: Languages = "",
        target_language: Languages = "",
        truncate: bool = False,
        priority: Priority = "",
        timeout_seconds: float | None = None,
    ) -> list[Scoring]:
        """Tells how probable given targets are, for one text or for several inputs.

        Args:
            inputs: One text, or several texts or lists of token ids.
            targets: For one text its target, or its targets; for several inputs such an entry for
                each.
            model: Its name.
            version: Its version or a label; if empty the one labelled stable, or the newest.
            source_language: Of all inputs, or of each.
            target_language: Of all inputs, or of each.
            truncate: Whether sources that are too long are cut.
            priority: Whose turn comes first while inputs wait; empty for normal.
            timeout_seconds: Deadline of the call.

        Returns:
            The scores of each input, in their order.
        """
        request = score_request(
            inputs, targets, model, version, truncate, source_language, target_language, priority
        )
        response = await self._call(self._generation.ScoreTargets, request, timeout_seconds)
        return [to_scoring(result) for result in response.results]

    async def embed(
        self,
        texts: str | Items[str],
        *,
        model: str = "",
        version: str = "",
        normalize: bool | None = None,
        truncate: bool = False,
        priority: Priority = "",
        timeout_seconds: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Embeddings:
        """Embeds one text or several, in their order."""
        request = embed_request(texts, model, version, normalize, truncate, priority, options)
        return to_embeddings(await self._call(self._encoding.Embed, request, timeout_seconds))

    async def list_models(self, *, timeout_seconds: float | None = None) -> list[ModelInfo]:
        """Describes all served models."""
        request = model_pb2.ListModelsRequest()
        response = await self._call(self._models.ListModels, request, timeout_seconds)
        return to_models(response.models)

    async def get_model(
        self, name: str = "", version: str = "", *, timeout_seconds: float | None = None
    ) -> ModelInfo:
        """Describes one model."""
        request = model_pb2.GetModelRequest(model_name=name, model_version=version)
        response = await self._call(self._models.GetModel, request, timeout_seconds)
        return to_models([response.model])[0]

    async def tokenize(
        self,
        texts: str | Items[str],
        *,
        model: str = "",
        version: str = "",
        timeout_seconds: float | None = None,
    ) -> list[list[Token]]:
        """Splits texts into the tokens the model would read."""
        request = tokenize_request(texts, model, version)
        return to_tokens(await self._call(self._models.Tokenize, request, timeout_seconds))

    async def detokenize(
        self,
        token_ids: Items[Items[int]],
        *,
        model: str = "",
        version: str = "",
        timeout_seconds: float | None = None,
    ) -> list[str]:
        """Joins lists of target token ids to texts."""
        request = detokenize_request(token_ids, model, version)
        response = await self._call(self._models.Detokenize, request, timeout_seconds)
        return list(response.texts)

    async def is_ready(self, service: str = "", *, timeout_seconds: float = 5.0) -> bool:
        """Whether the server answers and says SERVING for a service, or for itself."""
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            response = await self._health.Check(request, timeout=timeout_seconds)
        except grpc.aio.AioRpcError:
            return False
        return bool(response.status == health_pb2.HealthCheckResponse.SERVING)

    def _timeout(self, timeout_seconds: float | None) -> float:
        return self._timeout_seconds if timeout_seconds is None else timeout_seconds

    async def _call(
        self,
        method: "grpc.aio.UnaryUnaryMultiCallable[Any, _Response]",
        request: Any,
        timeout_seconds: float | None,
    ) -> _Response:
        try:
            return await method(
                request, timeout=self._timeout(timeout_seconds), metadata=self._metadata
            )
        except grpc.aio.AioRpcError as error:
            raise to_call_error(error) from error
