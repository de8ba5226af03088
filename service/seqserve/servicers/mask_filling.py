"""FillMask: texts with masks to passages, logits of the masks to tokens."""

import numpy as np
from numpy.typing import NDArray

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import resolve_cutting
from seqserve.servicers.input_check import check_count, check_text
from seqserve.servicers.offloading import off_loop
from seqserve.servicers.passages import Text, admitted_more, read_passages
from seqserve.servicers.requests import admitted
from seqserve.servicers.scores import best_first, softmax
from seqserve.servicers.turn import Turn, predict, to_timing
from seqserve.task_record import MaskFillingRecord
from seqserve.v1 import encoding_pb2

_DEFAULT_COUNT = 5
_TOKEN_BYTES = 40
"""Of a token in the reply without its text in place: numbers, and a short word."""


async def fill_masks(
    model: ServedModel, request: encoding_pb2.FillMaskRequest, config: ServerConfig, turn: Turn
) -> list[encoding_pb2.MaskFilling]:
    """Fills the masks of all texts of a request.

    Raises:
        InvalidRequestError: Something in it is wrong.
        OverloadedError: Too much is outstanding.
    """
    record = model.manifest.mask_filling
    assert record is not None
    check_count(len(request.inputs), "inputs", config)
    targets = _read_targets(model, request, config)
    count = _resolve_count(request, model, targets)
    cutting = resolve_cutting(request)
    with admitted(model, len(request.inputs)):
        texts = []
        for index, text in enumerate(request.inputs):
            check_text(text, f"inputs[{index}]", config)
            texts.append(Text(text, f"inputs[{index}]"))
        passages = await read_passages(model, texts, cutting)
        counts = _count_masks(passages, texts, record, config)
        size = _check_size(request, counts, count, config)
        # Each mask has logits over the whole vocabulary, and takes a place like a text.
        with admitted_more(model, sum(counts) - len(counts)):
            answers = await predict(model, passages, turn)
            return await off_loop(
                size,
                lambda: [
                    _to_result(
                        model,
                        passage,
                        answer,
                        targets,
                        count=count,
                        return_sequences=request.return_sequences,
                    )
                    for passage, answer in zip(passages, answers, strict=True)
                ],
                stage="postprocess",
            )


def _read_targets(
    model: ServedModel, request: encoding_pb2.FillMaskRequest, config: ServerConfig
) -> NDArray[np.int64] | None:
    """The only tokens to consider, in order; None for all.

    Source: ``FillMaskPipeline.get_target_ids`` of ``transformers``, which takes the first piece of
    an entry it does not know.
    """
    if not request.targets:
        return None
    token_ids = set()
    for index, target in enumerate(request.targets):
        field = f"targets[{index}]"
        check_text(target, field, config)
        token_id = model.source_tokenizer.find(target)
        if token_id is None:
            pieces = model.source_tokenizer.encode_plain(target)
            written = " ".join(map(model.source_tokenizer.entry, pieces[:8])) or "nothing"
            raise InvalidRequestError(
                field,
                f"`{field}` must be an entry of the vocabulary, but {target!r} is none; the "
                f"tokenizer makes {written} of it",
            )
        token_ids.add(token_id)
    return np.array(sorted(token_ids), np.int64)


def _resolve_count(
    request: encoding_pb2.FillMaskRequest, model: ServedModel, targets: NDArray[np.int64] | None
) -> int:
    if targets is None:
        most, what = model.manifest.source_vocabulary_size, "the size of the vocabulary"
    else:
        most, what = len(targets), "the number of different targets"
    count = request.top_k if request.HasField("top_k") else min(_DEFAULT_COUNT, most)
    if not 1 <= count <= most:
        raise InvalidRequestError(
            "top_k", f"`top_k` must be at least 1 and at most {most}, {what}, but is {count}"
        )
    return count


def _count_masks(
    passages: list[Passage], texts: list[Text], record: MaskFillingRecord, config: ServerConfig
) -> list[int]:
    """The number of masks of each text, all together within the limit of inputs."""
    counts = [passage.tokens.count(record.mask_token_id) for passage in passages]
    for num_masks, passage, text in zip(counts, passages, texts, strict=True):
        if not num_masks:
            left = " in what was left of it" if passage.num_truncated else ""
            raise InvalidRequestError(
                text.field,
                f"`{text.field}` must hold the mask token {record.mask_token} at least once, but "
                f"there is none{left}",
            )
    most = min(config.max_inputs_per_request, config.max_outstanding)
    if sum(counts) > most:
        raise InvalidRequestError(
            "inputs",
            f"`inputs` must hold at most {most} masks in all (max_inputs_per_request), but hold "
            f"{sum(counts)}; send fewer texts, or texts with fewer masks",
        )
    return counts


def _check_size(
    request: encoding_pb2.FillMaskRequest, counts: list[int], count: int, config: ServerConfig
) -> int:
    """About the bytes of the reply, within the limit of a message."""
    size = sum(counts) * count * _TOKEN_BYTES
    if request.return_sequences:
        size += sum(
            num_masks * count * len(text.encode())
            for num_masks, text in zip(counts, request.inputs, strict=True)
        )
    if size > config.max_message_bytes:
        raise InvalidRequestError(
            "top_k",
            f"`top_k` of {count} for {sum(counts)} masks makes a reply of about {size} bytes, but "
            f"a message may have {config.max_message_bytes} (max_message_bytes); lower `top_k`, "
            "send fewer masks, or leave `return_sequences` out",
        )
    return size


def _to_result(
    model: ServedModel,
    passage: Passage,
    answer: EncoderOutput,
    targets: NDArray[np.int64] | None,
    *,
    count: int,
    return_sequences: bool,
) -> encoding_pb2.MaskFilling:
    record = model.manifest.mask_filling
    assert record is not None
    places = [index for index, token in enumerate(passage.tokens) if token == record.mask_token_id]
    masks = []
    for place, logits in zip(places, answer.values, strict=True):  # logits: [V]
        scores = softmax(logits)
        if targets is not None:
            scores = scores[targets]
        tokens = []
        for index in best_first(scores, count):
            token = index if targets is None else int(targets[index])
            message = encoding_pb2.MaskToken(
                id=token, text=model.source_tokenizer.decode_all([token]), score=scores[index]
            )
            if return_sequences:
                filled = [*passage.tokens[:place], token, *passage.tokens[place + 1 :]]
                # Without special tokens the masks that are left would be gone, too.
                decode = (
                    model.source_tokenizer.decode
                    if len(places) == 1
                    else model.source_tokenizer.decode_all
                )
                message.sequence = decode(filled)
            tokens.append(message)
        masks.append(encoding_pb2.FilledMask(token_index=place, tokens=tokens))
    return encoding_pb2.MaskFilling(
        masks=masks,
        token_count=len(passage.tokens),
        truncated_token_count=passage.num_truncated,
        timing=to_timing(answer.timing),
    )
