"""ClassifyTokens: texts to passages, logits of tokens to entities with their places."""

import itertools

import numpy as np

from seqserve.config import ServerConfig
from seqserve.entity import Entity, EntityFinder, Strategy, keep_longest, to_group
from seqserve.errors import InvalidRequestError
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import Cutting, add_windows, resolve_cutting
from seqserve.servicers.input_check import check_count, check_text
from seqserve.servicers.offloading import off_loop
from seqserve.servicers.passages import (
    Text,
    admitted_windows,
    read_passages,
    read_windowed,
    size_of,
)
from seqserve.servicers.requests import admitted
from seqserve.servicers.scores import softmax
from seqserve.servicers.turn import Turn, predict, slowest, to_timing
from seqserve.task_record import TokenClassificationRecord
from seqserve.v1 import encoding_pb2

_STRATEGIES: dict[int, Strategy] = {
    encoding_pb2.AGGREGATION_STRATEGY_UNSPECIFIED: Strategy.NONE,
    encoding_pb2.AGGREGATION_STRATEGY_NONE: Strategy.NONE,
    encoding_pb2.AGGREGATION_STRATEGY_SIMPLE: Strategy.SIMPLE,
    encoding_pb2.AGGREGATION_STRATEGY_FIRST: Strategy.FIRST,
    encoding_pb2.AGGREGATION_STRATEGY_AVERAGE: Strategy.AVERAGE,
    encoding_pb2.AGGREGATION_STRATEGY_MAX: Strategy.MAX,
}
_MEANINGLESS = frozenset({"O"})
"""The labels that are left out unless a request says which: outside of all entities."""


async def classify_tokens(
    model: ServedModel,
    request: encoding_pb2.ClassifyTokensRequest,
    config: ServerConfig,
    turn: Turn,
) -> list[encoding_pb2.TokenClassification]:
    """Finds the entities of all texts of a request.

    Raises:
        InvalidRequestError: Something in it is wrong.
        OverloadedError: Too much is outstanding.
    """
    record = model.manifest.token_classification
    assert record is not None
    check_count(len(request.inputs), "inputs", config)
    strategy = _resolve_strategy(request.aggregation_strategy)
    ignored = _resolve_ignored(request, record, strategy)
    cutting = _resolve_cutting(request, strategy, model)
    with admitted(model, len(request.inputs)):
        texts = []
        for index, text in enumerate(request.inputs):
            check_text(text, f"inputs[{index}]", config)
            texts.append(Text(text, f"inputs[{index}]"))
        if cutting.stride is None:
            passages = await read_passages(model, texts, cutting, has_offsets=True)
            windows = [[one] for one in passages]
        else:
            windows = await read_windowed(model, texts, cutting.stride, config)
        with admitted_windows(model, windows):
            answers = iter(await predict(model, itertools.chain(*windows), turn))
    finder = EntityFinder(model.source_tokenizer, record.labels, record.unknown_token_id, strategy)
    parts = [(one, list(itertools.islice(answers, len(one)))) for one in windows]
    return await off_loop(
        size_of(texts),
        lambda: [
            _to_result(text.text, passages, vectors, finder, ignored)
            for text, (passages, vectors) in zip(texts, parts, strict=True)
        ],
        stage="postprocess",
    )


def _resolve_strategy(value: int) -> Strategy:
    if value not in _STRATEGIES:
        known = ", ".join(
            f"{number} ({name})" for name, number in encoding_pb2.AggregationStrategy.items()
        )
        raise InvalidRequestError(
            "aggregation_strategy",
            f"`aggregation_strategy` must be one of {known}, but is {value}",
        )
    return _STRATEGIES[value]


def _resolve_ignored(
    request: encoding_pb2.ClassifyTokensRequest,
    record: TokenClassificationRecord,
    strategy: Strategy,
) -> frozenset[str]:
    """The labels to leave out."""
    if not request.HasField("ignore_labels"):
        return _MEANINGLESS
    found: dict[str, None] = dict.fromkeys(
        label if strategy is Strategy.NONE else to_group(label) for label in record.labels
    )
    for index, label in enumerate(request.ignore_labels.labels):
        if label not in found:
            field = f"ignore_labels.labels[{index}]"
            raise InvalidRequestError(
                field,
                f"`{field}` must be one of the labels that are returned, but is {label!r}; they "
                f"are: {', '.join(found)}",
            )
    return frozenset(request.ignore_labels.labels)


def _resolve_cutting(
    request: encoding_pb2.ClassifyTokensRequest, strategy: Strategy, model: ServedModel
) -> Cutting:
    cutting = resolve_cutting(request)
    if not request.HasField("stride"):
        return cutting
    if strategy is Strategy.NONE:
        raise InvalidRequestError(
            "stride",
            "`stride` needs an `aggregation_strategy`: without, the tokens that windows have in "
            "common would come twice; set one, or leave `stride` out",
        )
    return add_windows(cutting, request.stride, model)


def _to_result(
    text: str,
    passages: list[Passage],
    vectors: list[EncoderOutput],
    finder: EntityFinder,
    ignored: frozenset[str],
) -> encoding_pb2.TokenClassification:
    entities = [
        entity
        for passage, vector in zip(passages, vectors, strict=True)
        for entity in finder.find(text, passage, softmax(vector.values))
        if entity.label not in ignored
    ]
    if len(passages) > 1:
        entities = keep_longest(entities)
    return encoding_pb2.TokenClassification(
        entities=_to_messages(text, entities),
        token_count=sum(len(passage.tokens) for passage in passages),
        truncated_token_count=sum(passage.num_truncated for passage in passages),
        window_count=len(passages),
        timing=to_timing(slowest(vectors)),
    )


def _to_messages(text: str, entities: list[Entity]) -> list[encoding_pb2.Entity]:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    # Where each character begins in UTF-8: a byte, and one more from each of these numbers on.
    sizes = 1 + sum((points >= first).astype(np.int64) for first in (0x80, 0x800, 0x10000))
    byte_offsets = np.concatenate([[0], np.cumsum(sizes)])
    return [
        encoding_pb2.Entity(
            label=entity.label,
            score=entity.score,
            word=entity.word,
            start_offset=entity.start,
            end_offset=entity.end,
            start_byte_offset=byte_offsets[entity.start],
            end_byte_offset=byte_offsets[entity.end],
            token_index=entity.token_index,
        )
        for entity in entities
    ]
