"""Embedding: texts to vectors, with the states of their tokens if they are asked for."""

import numpy as np

from seqserve.inference_protocol.parameter import set_fields
from seqserve.inference_protocol.signature import Call, Input, Output, Signature, Tensors, stack
from seqserve.inference_protocol.token_prediction import token_signature
from seqserve.served_model import ServedModel
from seqserve.v1 import encoding_pb2

_STATES = "last_hidden_state"
_FLAG = "return_token_embeddings"
_PARAMETERS = (
    *("dimensions", "normalize", "prompt_name", "stride", "truncate"),
    "truncation_direction",
)


def embedding_signatures(model: ServedModel) -> list[Signature]:
    """With texts or with token ids."""
    record = model.manifest.embedding
    assert record is not None
    outputs = [
        Output("embedding", "FP32", (-1, record.embedding_size)),
        Output("token_count", "INT32", (-1,)),
        Output("truncated_token_count", "INT32", (-1,)),
    ]
    if record.token_embedding_size is not None:
        shape = (-1, -1, record.token_embedding_size)
        outputs.append(Output(_STATES, "FP32", shape, is_default=False, flag=_FLAG))
    text = Input("text", "BYTES", (-1,), is_required=True)
    return [Signature((text,), tuple(outputs), _PARAMETERS, embed), token_signature(model)]


async def embed(call: Call) -> Tensors:
    """Embeds all texts of a request."""
    manifest = call.model.manifest
    request = encoding_pb2.EmbedRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        inputs=call.texts("text"),
        priority=call.priority,
        return_token_embeddings=_STATES in call.asked,
    )
    set_fields(request, call.parameters)
    response = await call.services.encoding.Embed(request, call.context)
    embeddings = response.embeddings
    tensors = {"embedding": stack([one.values for one in embeddings], 2, np.float32)}
    for name in ("token_count", "truncated_token_count"):
        tensors[name] = stack([getattr(one, name) for one in embeddings], 1, np.int32)
    if request.return_token_embeddings:
        states = [[token.values for token in one.token_embeddings] for one in embeddings]
        tensors[_STATES] = stack(states, 3, np.float32)
    return tensors
