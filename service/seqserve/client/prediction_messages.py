"""Calls of encoder models with heads: arguments to requests, replies to results."""

from collections.abc import Sequence as Items
from typing import Any, Literal, TypedDict

from seqserve.client.arguments import (
    Priority,
    TruncationDirection,
    as_texts,
    as_texts_only,
    to_enum_name,
    to_priority,
)
from seqserve.client.prediction_results import (
    Classification,
    Entity,
    LabelScore,
    MaskFilling,
    MaskToken,
    RankedDocument,
    TokenClassification,
)
from seqserve.client.timing_messages import to_encoding_timing
from seqserve.v1 import encoding_pb2

ScoreFunction = Literal["", "softmax", "sigmoid", "none"]
"""What makes scores of logits; empty for what the model was trained for."""
AggregationStrategy = Literal["none", "simple", "first", "average", "max"]
"""How tokens are joined to entities."""
Activation = Literal["", "sigmoid", "identity"]
"""What makes a score of the logit of a cross-encoder; empty for the model's."""
TextOrPair = str | tuple[str, str]
"""A text, or a pair of texts."""


class EncodingOptions(TypedDict, total=False):
    """What all calls of encoder models take."""

    model: str
    version: str
    truncate: bool
    """Whether what is too long is cut."""
    truncation_direction: TruncationDirection
    priority: Priority


def classify_request(
    inputs: TextOrPair | Items[TextOrPair],
    function_to_apply: ScoreFunction,
    top_k: int | None,
    return_logits: bool,
    options: EncodingOptions,
) -> encoding_pb2.ClassifyRequest:
    """A request for the labels of a text, of a pair (a tuple), or of several (a list)."""
    listed = [inputs] if isinstance(inputs, str | tuple) else list(inputs)
    return encoding_pb2.ClassifyRequest(
        inputs=[
            encoding_pb2.ClassifyInput(text=one)
            if isinstance(one, str)
            else encoding_pb2.ClassifyInput(text=one[0], text_pair=one[1])
            for one in listed
        ],
        function_to_apply=to_enum_name(
            "SCORE_FUNCTION", function_to_apply, ScoreFunction, "function_to_apply"
        ),
        top_k=top_k,
        return_logits=return_logits,
        **_shared(options),
    )


def classify_tokens_request(
    texts: str | Items[str],
    aggregation_strategy: AggregationStrategy,
    ignore_labels: Items[str] | None,
    stride: int | None,
    options: EncodingOptions,
) -> encoding_pb2.ClassifyTokensRequest:
    """A request for the entities of texts."""
    return encoding_pb2.ClassifyTokensRequest(
        inputs=as_texts(texts),
        aggregation_strategy=to_enum_name(
            "AGGREGATION_STRATEGY",
            aggregation_strategy,
            AggregationStrategy,
            "aggregation_strategy",
        ),
        ignore_labels=(
            None
            if ignore_labels is None
            else encoding_pb2.LabelList(labels=as_texts_only(ignore_labels, "ignore_labels"))
        ),
        stride=stride,
        **_shared(options),
    )


def rerank_request(
    query: str,
    documents: Items[str],
    activation: Activation,
    top_n: int | None,
    keep_order: bool,
    return_documents: bool,
    options: EncodingOptions,
    prompt_name: str | None = None,
) -> encoding_pb2.RerankRequest:
    """A request for the scores of documents."""
    return encoding_pb2.RerankRequest(
        query=query,
        documents=as_texts_only(documents, "documents"),
        activation=to_enum_name("RERANKING_ACTIVATION", activation, Activation, "activation"),
        top_n=top_n,
        keep_order=keep_order,
        return_documents=return_documents,
        prompt_name=prompt_name,
        **_shared(options),
    )


def fill_mask_request(
    texts: str | Items[str],
    top_k: int | None,
    targets: Items[str],
    return_sequences: bool,
    options: EncodingOptions,
) -> encoding_pb2.FillMaskRequest:
    """A request for the tokens in place of masks."""
    return encoding_pb2.FillMaskRequest(
        inputs=as_texts(texts),
        top_k=top_k,
        targets=as_texts_only(targets, "targets"),
        return_sequences=return_sequences,
        **_shared(options),
    )


def _shared(options: EncodingOptions) -> dict[str, Any]:
    """The fields that all requests have."""
    direction = options.get("truncation_direction", "")
    return {
        "model_name": options.get("model", ""),
        "model_version": options.get("version", ""),
        "truncate": options.get("truncate", False),
        "truncation_direction": to_enum_name(
            "TRUNCATION_DIRECTION", direction, TruncationDirection, "truncation_direction"
        ),
        "priority": to_priority(options.get("priority", "")),
    }


def to_classification(message: encoding_pb2.Classification) -> Classification:
    """The labels of one input."""
    return Classification(
        labels=tuple(
            LabelScore(one.label, one.score, one.logit if one.HasField("logit") else None)
            for one in message.labels
        ),
        token_count=message.token_count,
        truncated_token_count=message.truncated_token_count,
        timing=to_encoding_timing(message.timing),
    )


def to_token_classification(message: encoding_pb2.TokenClassification) -> TokenClassification:
    """The entities of one text."""
    return TokenClassification(
        entities=tuple(
            Entity(
                label=one.label,
                score=one.score,
                word=one.word,
                start_offset=one.start_offset,
                end_offset=one.end_offset,
                start_byte_offset=one.start_byte_offset,
                end_byte_offset=one.end_byte_offset,
                token_index=one.token_index if one.HasField("token_index") else None,
            )
            for one in message.entities
        ),
        token_count=message.token_count,
        truncated_token_count=message.truncated_token_count,
        window_count=message.window_count,
        timing=to_encoding_timing(message.timing),
    )


def to_ranked_document(message: encoding_pb2.RankedDocument) -> RankedDocument:
    """One document with its score."""
    return RankedDocument(
        index=message.index,
        score=message.score,
        document=message.document,
        token_count=message.token_count,
        truncated_token_count=message.truncated_token_count,
        timing=to_encoding_timing(message.timing),
    )


def to_mask_filling(message: encoding_pb2.MaskFilling) -> MaskFilling:
    """The tokens for the masks of one text."""
    return MaskFilling(
        masks=tuple(
            tuple(MaskToken(one.id, one.text, one.score, one.sequence) for one in mask.tokens)
            for mask in message.masks
        ),
        token_count=message.token_count,
        truncated_token_count=message.truncated_token_count,
        timing=to_encoding_timing(message.timing),
    )
