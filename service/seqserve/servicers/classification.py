"""Classify: texts and pairs of texts to passages, logits to labels."""

from collections.abc import Iterator

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import resolve_cutting
from seqserve.servicers.input_check import check_count, check_text
from seqserve.servicers.passages import Text, read_passages
from seqserve.servicers.requests import admitted
from seqserve.servicers.scores import ScoreFunction, best_first, identity, sigmoid, softmax
from seqserve.servicers.turn import Turn, predict, to_timing
from seqserve.task_record import ClassificationRecord
from seqserve.v1 import encoding_pb2

_FUNCTIONS: dict[int, ScoreFunction] = {
    encoding_pb2.SCORE_FUNCTION_SOFTMAX: softmax,
    encoding_pb2.SCORE_FUNCTION_SIGMOID: sigmoid,
    encoding_pb2.SCORE_FUNCTION_NONE: identity,
}


async def classify(
    model: ServedModel, request: encoding_pb2.ClassifyRequest, config: ServerConfig, turn: Turn
) -> list[encoding_pb2.Classification]:
    """Labels all inputs of a request.

    Raises:
        InvalidRequestError: Something in it is wrong.
        OverloadedError: Too much is outstanding.
    """
    record = model.manifest.classification
    assert record is not None
    check_count(len(request.inputs), "inputs", config)
    function = _resolve_function(request.function_to_apply, record)
    num_labels = len(record.labels)
    count = request.top_k if request.HasField("top_k") else num_labels
    if not 1 <= count <= num_labels:
        raise InvalidRequestError(
            "top_k",
            f"`top_k` must be at least 1 and at most {num_labels}, the number of labels, but is "
            f"{count}",
        )
    cutting = resolve_cutting(request)
    with admitted(model, len(request.inputs)):
        texts = list(_check_inputs(request, config))
        passages = await read_passages(model, texts, cutting)
        answers = await predict(model, passages, turn)
    return [
        _to_result(
            passage, answer, record, function, count=count, return_logits=request.return_logits
        )
        for passage, answer in zip(passages, answers, strict=True)
    ]


def _check_inputs(request: encoding_pb2.ClassifyRequest, config: ServerConfig) -> Iterator[Text]:
    for index, message in enumerate(request.inputs):
        field = f"inputs[{index}]"
        check_text(message.text, f"{field}.text", config)
        if message.HasField("text_pair"):
            check_text(message.text_pair, f"{field}.text_pair", config)
            yield Text(message.text, field, message.text_pair, others=" in both texts")
        else:
            yield Text(message.text, f"{field}.text")


def _resolve_function(value: int, record: ClassificationRecord) -> ScoreFunction:
    """What makes scores of logits.

    Source: ``TextClassificationPipeline`` of ``transformers``.
    """
    if value == encoding_pb2.SCORE_FUNCTION_UNSPECIFIED:
        match record.problem_type:
            case "regression":
                return identity
            case "single_label" if len(record.labels) > 1:
                return softmax
        return sigmoid
    if value not in _FUNCTIONS:
        known = ", ".join(
            f"{number} ({name})" for name, number in encoding_pb2.ScoreFunction.items()
        )
        raise InvalidRequestError(
            "function_to_apply", f"`function_to_apply` must be one of {known}, but is {value}"
        )
    return _FUNCTIONS[value]


def _to_result(
    passage: Passage,
    answer: EncoderOutput,
    record: ClassificationRecord,
    function: ScoreFunction,
    *,
    count: int,
    return_logits: bool,
) -> encoding_pb2.Classification:
    scores = function(answer.values)
    return encoding_pb2.Classification(
        labels=[
            encoding_pb2.LabelScore(
                label=record.labels[index],
                score=scores[index],
                logit=float(answer.values[index]) if return_logits else None,
            )
            for index in best_first(scores, count)
        ],
        token_count=len(passage.tokens),
        truncated_token_count=passage.num_truncated,
        timing=to_timing(answer.timing),
    )
