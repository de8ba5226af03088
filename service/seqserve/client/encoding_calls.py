"""The calls of Client to encoder models with heads, and to embed in bulk."""

from collections.abc import Iterable, Iterator
from collections.abc import Sequence as Items
from typing import Any, Unpack

import grpc

from seqserve.client import embedding_messages, prediction_messages
from seqserve.client.arguments import Priority
from seqserve.client.embedding_messages import EmbedOptions
from seqserve.client.errors import CallError, to_call_error
from seqserve.client.prediction_messages import (
    Activation,
    AggregationStrategy,
    EncodingOptions,
    ScoreFunction,
    TextOrPair,
)
from seqserve.client.prediction_results import (
    Classification,
    MaskFilling,
    RankedDocument,
    TokenClassification,
)
from seqserve.client.results import Embeddings
from seqserve.v1 import encoding_pb2, encoding_pb2_grpc


class EncodingCalls:
    """Part of :class:`Client`."""

    _encoding: encoding_pb2_grpc.EncodingServiceStub
    _metadata: Any

    def _call(self, method: Any, request: Any, timeout_seconds: float | None) -> Any:
        """Makes a unary call."""
        raise NotImplementedError

    def classify(
        self,
        inputs: TextOrPair | Items[TextOrPair],
        *,
        function_to_apply: ScoreFunction = "",
        top_k: int | None = None,
        return_logits: bool = False,
        timeout_seconds: float | None = None,
        **options: Unpack[EncodingOptions],
    ) -> list[Classification]:
        """Labels a text, a pair of texts (a tuple), or several (a list), best label first."""
        request = prediction_messages.classify_request(
            inputs, function_to_apply, top_k, return_logits, options
        )
        response = self._call(self._encoding.Classify, request, timeout_seconds)
        return [prediction_messages.to_classification(result) for result in response.results]

    def classify_tokens(
        self,
        texts: str | Items[str],
        *,
        aggregation_strategy: AggregationStrategy = "simple",
        ignore_labels: Items[str] | None = None,
        stride: int | None = None,
        timeout_seconds: float | None = None,
        **options: Unpack[EncodingOptions],
    ) -> list[TokenClassification]:
        """Finds labelled tokens or entities; "O" is left out unless ``ignore_labels`` is given."""
        request = prediction_messages.classify_tokens_request(
            texts, aggregation_strategy, ignore_labels, stride, options
        )
        response = self._call(self._encoding.ClassifyTokens, request, timeout_seconds)
        return [prediction_messages.to_token_classification(result) for result in response.results]

    def rerank(
        self,
        query: str,
        documents: Items[str],
        *,
        activation: Activation = "",
        top_n: int | None = None,
        keep_order: bool = False,
        return_documents: bool = False,
        prompt_name: str | None = None,
        timeout_seconds: float | None = None,
        **options: Unpack[EncodingOptions],
    ) -> list[RankedDocument]:
        """Scores documents for a query, best first unless their order is kept.

        The prompt of a name is put before the query: None for the model's default, empty for none.
        """
        request = prediction_messages.rerank_request(
            query,
            documents,
            activation,
            top_n,
            keep_order,
            return_documents,
            options,
            prompt_name,
        )
        response = self._call(self._encoding.Rerank, request, timeout_seconds)
        return [prediction_messages.to_ranked_document(result) for result in response.results]

    def fill_mask(
        self,
        texts: str | Items[str],
        *,
        top_k: int | None = None,
        targets: Items[str] = (),
        return_sequences: bool = False,
        timeout_seconds: float | None = None,
        **options: Unpack[EncodingOptions],
    ) -> list[MaskFilling]:
        """Proposes tokens for the masks of texts, of all tokens or of ``targets`` alone."""
        request = prediction_messages.fill_mask_request(
            texts, top_k, targets, return_sequences, options
        )
        response = self._call(self._encoding.FillMask, request, timeout_seconds)
        return [prediction_messages.to_mask_filling(result) for result in response.results]

    def embed_stream(
        self,
        batches: Iterable[Items[str]],
        *,
        model: str = "",
        version: str = "",
        normalize: bool | None = None,
        truncate: bool = False,
        priority: Priority = "",
        timeout_seconds: float | None = None,
        **options: Unpack[EmbedOptions],
    ) -> Iterator[Embeddings | CallError]:
        """Embeds lists of texts in bulk, while later ones are still being made.

        Args:
            batches: Lists of texts, of some ten each, say.
            model: Its name.
            version: Its version or a label; if empty the one labelled stable, or the newest.
            normalize: Whether embeddings have length 1; None as the model was trained.
            truncate: Whether texts that are too long are cut.
            priority: Whose turn comes first.
            timeout_seconds: Deadline of the whole stream; None for none.
            options: As for ``embed``.

        Yields:
            For each list, in order, its embeddings, or why there are none: other lists are
            embedded all the same.

        Raises:
            CallError: The stream broke off; what was not answered may be sent again.
        """
        settings = embedding_messages.embed_request(
            [], model, version, normalize, truncate, priority, options
        )
        requests = _Requests(batches, settings)
        call = self._encoding.EmbedStream(
            iter(requests), timeout=timeout_seconds, metadata=self._metadata
        )
        try:
            for message in call:
                if message.WhichOneof("outcome") == "response":
                    yield embedding_messages.to_embeddings(message.response)
                else:
                    yield embedding_messages.to_request_error(message.error)
        except grpc.RpcError as error:
            if requests.error is not None:
                raise requests.error from None
            raise to_call_error(error) from error
        finally:
            call.cancel()


class _Requests:
    """The requests of a stream; gRPC reads them in a thread of its own."""

    def __init__(self, batches: Iterable[Items[str]], settings: encoding_pb2.EmbedRequest) -> None:
        self._batches = batches
        self._settings = settings
        self.error: Exception | None = None
        """What ended the batches, if they failed."""

    def __iter__(self) -> Iterator[encoding_pb2.EmbedStreamRequest]:
        try:
            for texts in self._batches:
                yield embedding_messages.embed_stream_request(texts, self._settings)
        except Exception as error:
            self.error = error
            raise
