"""Mask filling: texts with masks to the tokens that may stand in their place."""

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
_OUTPUTS = (
    Output("token", "BYTES", (-1, -1, -1)),
    Output("token_id", "INT32", (-1, -1, -1)),
    Output("score", "FP32", (-1, -1, -1)),
    Output("sequence", "BYTES", (-1, -1, -1), is_default=False, flag="return_sequences"),
    Output("token_index", "INT32", (-1, -1)),
    Output("mask_count", "INT32", (-1,)),
    Output("token_count", "INT32", (-1,)),
    Output("truncated_token_count", "INT32", (-1,)),
)
_PARAMETERS = ("targets", "top_k", "truncate", "truncation_direction")


def mask_filling_signatures(model: ServedModel) -> list[Signature]:
    """With texts or with token ids."""
    return [Signature(_INPUTS, _OUTPUTS, _PARAMETERS, fill_masks), token_signature(model)]


async def fill_masks(call: Call) -> Tensors:
    """Fills the masks of all texts; ``mask_count`` tells how many of a row are some."""
    manifest = call.model.manifest
    request = encoding_pb2.FillMaskRequest(
        model_name=manifest.name,
        model_version=manifest.version,
        inputs=call.texts("text"),
        priority=call.priority,
        return_sequences="sequence" in call.asked,
    )
    set_fields(request, call.parameters)
    results = (await call.services.encoding.FillMask(request, call.context)).results
    rows = [[mask.tokens for mask in result.masks] for result in results]  # [N, masks, tokens]
    tensors = {
        "token": stack_texts([[[one.text for one in mask] for mask in row] for row in rows], 3),
        "token_id": stack(
            [[[one.id for one in mask] for mask in row] for row in rows], 3, np.int32
        ),
        "score": stack(
            [[[one.score for one in mask] for mask in row] for row in rows], 3, np.float32
        ),
        "token_index": stack(
            [[mask.token_index for mask in result.masks] for result in results], 2, np.int32
        ),
        "mask_count": stack([len(row) for row in rows], 1, np.int32),
    }
    if request.return_sequences:
        tensors["sequence"] = stack_texts(
            [[[one.sequence for one in mask] for mask in row] for row in rows], 3
        )
    for name in ("token_count", "truncated_token_count"):
        tensors[name] = stack([getattr(one, name) for one in results], 1, np.int32)
    return tensors
