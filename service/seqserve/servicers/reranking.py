"""Rerank: a query with each document to pairs, logits to scores in order."""

import numpy as np

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import resolve_cutting
from seqserve.servicers.input_check import check_count, check_text
from seqserve.servicers.passages import Text, read_passages
from seqserve.servicers.prompts import resolve_prompt
from seqserve.servicers.requests import admitted
from seqserve.servicers.scores import ScoreFunction, best_first, identity, sigmoid
from seqserve.servicers.turn import Turn, predict, to_timing
from seqserve.task_record import RerankingRecord
from seqserve.v1 import encoding_pb2, model_pb2


async def rerank(
    model: ServedModel, request: encoding_pb2.RerankRequest, config: ServerConfig, turn: Turn
) -> list[encoding_pb2.RankedDocument]:
    """Scores all documents of a request.

    Raises:
        InvalidRequestError: Something in it is wrong.
        OverloadedError: Too much is outstanding.
    """
    record = model.manifest.reranking
    assert record is not None
    documents = request.documents
    check_count(len(documents), "documents", config)
    activation = _resolve_activation(request.activation, record)
    prompt = resolve_prompt(request, record)
    count = request.top_n if request.HasField("top_n") else len(documents)
    if not 1 <= count <= len(documents):
        raise InvalidRequestError(
            "top_n",
            f"`top_n` must be at least 1 and at most {len(documents)}, the number of documents, "
            f"but is {count}",
        )
    cutting = resolve_cutting(request)
    with admitted(model, len(documents)):
        check_text(request.query, "query", config)
        query, texts = prompt + request.query, []
        for index, document in enumerate(documents):
            field = f"documents[{index}]"
            check_text(document, field, config)
            texts.append(Text(query, field, document, others=" together with `query`"))
        passages = await read_passages(model, texts, cutting)
        answers = await predict(model, passages, turn)
    scores = activation(np.concatenate([answer.values for answer in answers]))  # [N]
    indices = best_first(scores, count)
    return [
        encoding_pb2.RankedDocument(
            index=index,
            score=scores[index],
            document=documents[index] if request.return_documents else "",
            token_count=len(passages[index].tokens),
            truncated_token_count=passages[index].num_truncated,
            timing=to_timing(answers[index].timing),
        )
        for index in (sorted(indices) if request.keep_order else indices)
    ]


def _resolve_activation(value: int, record: RerankingRecord) -> ScoreFunction:
    """What makes a score of a logit."""
    match value:
        case model_pb2.RERANKING_ACTIVATION_UNSPECIFIED:
            return sigmoid if record.activation == "sigmoid" else identity
        case model_pb2.RERANKING_ACTIVATION_SIGMOID:
            return sigmoid
        case model_pb2.RERANKING_ACTIVATION_IDENTITY:
            return identity
    known = ", ".join(
        f"{number} ({name})" for name, number in model_pb2.RerankingActivation.items()
    )
    raise InvalidRequestError("activation", f"`activation` must be one of {known}, but is {value}")
