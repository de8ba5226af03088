"""Token ids to what the graph of an encoder returns: vectors, states, logits.

For callers that tokenize themselves and want numbers, as of the ONNX model alone. Rows go to the
same lanes as texts, and their results depend as little on each other.
"""

import numpy as np

from seqserve.errors import InvalidRequestError
from seqserve.inference_protocol.dense_vector import to_dense
from seqserve.inference_protocol.signature import Call, Input, Output, Signature, Tensors, stack
from seqserve.inference_protocol.token_rows import TOKEN_INPUTS, check_shape, read_token_rows
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.servicers.embedding_shape import scale
from seqserve.servicers.input_check import check_token_ids
from seqserve.servicers.passages import admitted_more
from seqserve.servicers.requests import admitted
from seqserve.servicers.turn import predict, take_turn

_NUMBER_BYTES = 4
_TYPES = Input("token_type_ids", "INT64", (-1, -1))
_STATES = "last_hidden_state"


def token_signature(model: ServedModel) -> Signature:
    """The tensors of an encoder whose caller tokenizes itself."""
    return Signature((*TOKEN_INPUTS, _TYPES), tuple(_outputs(model)), (), predict_tokens)


async def predict_tokens(call: Call) -> Tensors:
    """Computes all rows of a request.

    Raises:
        InvalidRequestError: A row is too long or holds what the model does not have, or the reply
            would be too large.
        OverloadedError: Too much is outstanding.
    """
    model, config = call.model, call.services.config
    turn = take_turn(call.priority, call.context, config)
    rows = read_token_rows(call.tensors)
    types = _read_types(call, rows)
    masks = _find_masks(model, rows)
    _check_size(call, rows, masks)
    with admitted(model, len(rows)):
        limit = model.manifest.max_source_length
        for index, row in enumerate(rows):
            field = f"input_ids[{index}]"
            if len(row) > limit:
                raise InvalidRequestError(
                    field,
                    f"`{field}` must have at most {limit} tokens, but has {len(row)}; token ids "
                    "are never cut: shorten it",
                )
            check_token_ids(row, model.manifest.source_vocabulary_size, field)
        passages = [
            Passage(tuple(row), tuple(one), (), 0) for row, one in zip(rows, types, strict=True)
        ]
        # Each mask has logits over the whole vocabulary, and takes a place like a text.
        with admitted_more(model, max(0, len(masks) - len(rows))):
            answers = await predict(model, passages, turn, returns_states=_STATES in call.asked)
    return _to_tensors(model, answers, masks)


def _outputs(model: ServedModel) -> list[Output]:
    manifest = model.manifest
    if manifest.embedding is not None:
        outputs = [Output("sentence_embedding", "FP32", (-1, manifest.embedding.embedding_size))]
        size = manifest.embedding.token_embedding_size
        if size is not None:
            outputs.append(Output(_STATES, "FP32", (-1, -1, size), is_default=False))
        return outputs
    if manifest.classification is not None:
        return [Output("logits", "FP32", (-1, len(manifest.classification.labels)))]
    if manifest.token_classification is not None:
        return [Output("logits", "FP32", (-1, -1, len(manifest.token_classification.labels)))]
    if manifest.reranking is not None:
        return [Output("logits", "FP32", (-1, 1))]
    return [
        Output("logits", "FP32", (-1, manifest.source_vocabulary_size)),
        Output("mask_index", "INT64", (-1, 2)),
    ]


def _read_types(call: Call, rows: list[list[int]]) -> list[list[int]]:
    """The types of the tokens of each row, 0 where they are not given.

    Raises:
        InvalidRequestError: They do not fit, or the model was not made to tell types apart.
    """
    values = call.tensors.get("token_type_ids")
    if values is None:
        return [[0] * len(row) for row in rows]
    check_shape("token_type_ids", values.shape, call.tensors["input_ids"].shape)
    record = call.model.manifest.prediction
    most = int(record is not None and record.has_token_types)
    types = [one[: len(row)].tolist() for one, row in zip(values, rows, strict=True)]
    for index, row in enumerate(types):
        for position, kind in enumerate(row):
            if not 0 <= kind <= most:
                field = f"token_type_ids[{index}][{position}]"
                rule = "0 or 1" if most else "0, since this model tells no types apart"
                raise InvalidRequestError(field, f"`{field}` must be {rule}, but is {kind}")
    return types


def _find_masks(model: ServedModel, rows: list[list[int]]) -> list[tuple[int, int]]:
    """Row and position of each mask, of a model that fills them.

    Raises:
        InvalidRequestError: A row has none.
    """
    record = model.manifest.mask_filling
    if record is None:
        return []
    places = []
    for index, row in enumerate(rows):
        own = [(index, at) for at, token in enumerate(row) if token == record.mask_token_id]
        if not own:
            field = f"input_ids[{index}]"
            raise InvalidRequestError(
                field,
                f"`{field}` must hold the mask token {record.mask_token_id} at least once, but "
                "there is none",
            )
        places += own
    return places


def _check_size(call: Call, rows: list[list[int]], masks: list[tuple[int, int]]) -> None:
    """Refuses requests with too many masks, and those whose reply would be too large."""
    manifest, config = call.model.manifest, call.services.config
    most = min(config.max_inputs_per_request, config.max_outstanding)
    if len(masks) > most:
        raise InvalidRequestError(
            "input_ids",
            f"`input_ids` must hold at most {most} masks in all (max_inputs_per_request), but hold "
            f"{len(masks)}; send fewer rows, or rows with fewer masks",
        )
    num_numbers = len(masks) * manifest.source_vocabulary_size
    num_places = len(rows) * max(map(len, rows))
    if manifest.token_classification is not None:
        num_numbers = num_places * len(manifest.token_classification.labels)
    if _STATES in call.asked:
        assert manifest.embedding is not None
        num_numbers = num_places * (manifest.embedding.token_embedding_size or 0)
    if num_numbers * _NUMBER_BYTES > config.max_message_bytes:
        raise InvalidRequestError(
            "input_ids",
            f"`input_ids` make a reply of {num_numbers * _NUMBER_BYTES} bytes, but a message may "
            f"have {config.max_message_bytes} (max_message_bytes); send fewer or shorter rows",
        )


def _to_tensors(
    model: ServedModel, answers: list[EncoderOutput], masks: list[tuple[int, int]]
) -> Tensors:
    record = model.manifest.embedding
    if record is not None:
        size = record.embedding_size
        values = [to_dense(one.values, one.indices, size) for one in answers]
        vectors = [scale(one, is_normalized=record.normalize) for one in values]
        tensors = {"sentence_embedding": stack(vectors, 2, np.float32)}
        if answers[0].states is not None:
            tensors[_STATES] = stack([answer.states for answer in answers], 3, np.float32)
        return tensors
    values = [answer.values for answer in answers]
    if masks:
        return {
            "logits": np.concatenate(values),  # [N, V] of the masks
            "mask_index": np.array(masks, np.int64),
        }
    return {"logits": stack(values, values[0].ndim + 1, np.float32)}
