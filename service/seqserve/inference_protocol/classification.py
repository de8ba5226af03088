"""Classification: texts, or pairs of texts, to labels with their scores."""

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
from seqserve.inference_protocol.token_rows import check_shape
from seqserve.served_model import ServedModel
from seqserve.v1 import encoding_pb2

_INPUTS = (
    Input("text", "BYTES", (-1,), is_required=True),
    Input("text_pair", "BYTES", (-1,)),
)
_OUTPUTS = (
    Output("label", "BYTES", (-1, -1)),
    Output("score", "FP32", (-1, -1)),
    Output("logit", "FP32", (-1, -1), is_default=False, flag="return_logits"),
    Output("token_count", "INT32", (-1,)),
    Output("truncated_token_count", "INT32", (-1,)),
)
_PARAMETERS = ("function_to_apply", "top_k", "truncate", "truncation_direction")


def classification_signatures(model: ServedModel) -> list[Signature]:
    """With texts or with token ids."""
    return [Signature(_INPUTS, _OUTPUTS, _PARAMETERS, classify), token_signature(model)]


async def classify(call: Call) -> Tensors:
    """Labels all texts of a request, best label first."""
    texts, pairs = call.texts("text"), call.texts("text_pair")
    if "text_pair" in call.tensors:
        check_shape("text_pair", call.tensors["text_pair"].shape, (len(texts),))
    inputs = [encoding_pb2.ClassifyInput(text=text) for text in texts]
    for one, pair in zip(inputs, pairs, strict=False):
        one.text_pair = pair
    manifest = call.model.manifest
    request = encoding_pb2.ClassifyRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        inputs=inputs,
        priority=call.priority,
        return_logits="logit" in call.asked,
    )
    set_fields(request, call.parameters)
    results = (await call.services.encoding.Classify(request, call.context)).results
    rows = [result.labels for result in results]
    tensors = {
        "label": stack_texts([[one.label for one in row] for row in rows], 2),
        "score": stack([[one.score for one in row] for row in rows], 2, np.float32),
    }
    if request.return_logits:
        tensors["logit"] = stack([[one.logit for one in row] for row in rows], 2, np.float32)
    for name in ("token_count", "truncated_token_count"):
        tensors[name] = stack([getattr(one, name) for one in results], 1, np.int32)
    return tensors
