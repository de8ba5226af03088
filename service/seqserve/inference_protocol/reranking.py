"""Reranking: a query with documents to documents in order."""

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

_INPUTS = (
    Input("query", "BYTES", (1,), is_required=True),
    Input("documents", "BYTES", (-1,), is_required=True),
)
_OUTPUTS = (
    Output("index", "INT32", (-1,)),
    Output("score", "FP32", (-1,)),
    Output("document", "BYTES", (-1,), is_default=False, flag="return_documents"),
    Output("token_count", "INT32", (-1,)),
    Output("truncated_token_count", "INT32", (-1,)),
)
_PARAMETERS = (
    *("activation", "keep_order", "prompt_name", "top_n", "truncate"),
    "truncation_direction",
)


def reranking_signatures(model: ServedModel) -> list[Signature]:
    """With texts or with token ids."""
    return [Signature(_INPUTS, _OUTPUTS, _PARAMETERS, rerank), token_signature(model)]


async def rerank(call: Call) -> Tensors:
    """Scores the documents of a request; the best comes first unless ``keep_order`` is set."""
    manifest = call.model.manifest
    request = encoding_pb2.RerankRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        query=call.texts("query")[0],
        documents=call.texts("documents"),
        priority=call.priority,
        return_documents="document" in call.asked,
    )
    set_fields(request, call.parameters)
    results = (await call.services.encoding.Rerank(request, call.context)).results
    tensors = {"score": stack([one.score for one in results], 1, np.float32)}
    if request.return_documents:
        tensors["document"] = stack_texts([one.document for one in results], 1)
    for name in ("index", "token_count", "truncated_token_count"):
        tensors[name] = stack([getattr(one, name) for one in results], 1, np.int32)
    return tensors
