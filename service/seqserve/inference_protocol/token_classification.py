"""Token classification: texts to their labelled parts."""

import numpy as np

from seqserve.inference_protocol.parameter import set_fields
from seqserve.inference_protocol.signature import (
    Call,
    Input,
    Output,
    Signature,
    Tensors,
    stack,
    stack_texts,
)
from seqserve.inference_protocol.token_prediction import token_signature
from seqserve.served_model import ServedModel
from seqserve.v1 import encoding_pb2

_INPUTS = (Input("text", "BYTES", (-1,), is_required=True),)
_OFFSETS = ("start_offset", "end_offset", "start_byte_offset", "end_byte_offset")
_COUNTS = ("token_count", "truncated_token_count", "window_count")
_OUTPUTS = (
    Output("label", "BYTES", (-1, -1)),
    Output("score", "FP32", (-1, -1)),
    Output("word", "BYTES", (-1, -1)),
    *(Output(name, "INT32", (-1, -1)) for name in _OFFSETS),
    Output("token_index", "INT32", (-1, -1), needs="`aggregation_strategy` none"),
    Output("entity_count", "INT32", (-1,)),
    *(Output(name, "INT32", (-1,)) for name in _COUNTS),
)
_PARAMETERS = (
    *("aggregation_strategy", "ignore_labels", "stride", "truncate"),
    "truncation_direction",
)


def token_classification_signatures(model: ServedModel) -> list[Signature]:
    """With texts or with token ids."""
    return [Signature(_INPUTS, _OUTPUTS, _PARAMETERS, classify_tokens), token_signature(model)]


async def classify_tokens(call: Call) -> Tensors:
    """Finds the entities of all texts; ``entity_count`` tells how many of a row are some."""
    manifest = call.model.manifest
    request = encoding_pb2.ClassifyTokensRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        inputs=call.texts("text"),
        priority=call.priority,
    )
    set_fields(request, call.parameters)
    results = (await call.services.encoding.ClassifyTokens(request, call.context)).results
    rows = [result.entities for result in results]
    tensors = {
        "label": stack_texts([[one.label for one in row] for row in rows], 2),
        "score": stack([[one.score for one in row] for row in rows], 2, np.float32),
        "word": stack_texts([[one.word for one in row] for row in rows], 2),
        "entity_count": stack([len(row) for row in rows], 1, np.int32),
    }
    names: tuple[str, ...] = _OFFSETS
    if request.aggregation_strategy in (
        encoding_pb2.AGGREGATION_STRATEGY_UNSPECIFIED,
        encoding_pb2.AGGREGATION_STRATEGY_NONE,
    ):
        names = (*_OFFSETS, "token_index")
    for name in names:
        tensors[name] = stack([[getattr(one, name) for one in row] for row in rows], 2, np.int32)
    for name in _COUNTS:
        tensors[name] = stack([getattr(one, name) for one in results], 1, np.int32)
    return tensors
