"""FillMask: texts with masks to passages, logits of the masks to tokens."""

import numpy as np
from numpy.typing import NDArray

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.passage import Passage
from seqserve.sequence import EmbeddingVector
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import resolve_cutting
from seqserve.servicers.passages import Text, off_loop, read_passages
from seqserve.servicers.requests import admitted, check_count, check_text
from seqserve.servicers.scores import best_first, softmax
from seqserve.servicers.turn import Turn, predict, to_timing
from seqserve.task_record import MaskFillingRecord
from seqserve.v1 import encoding_pb2

_DEFAULT_COUNT = 5


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
        _check_masks(passages, texts, record, count, config)
        answers = await predict(model, passages, turn)
    return await off_loop(
        texts,
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


def _check_masks(
    passages: list[Passage],
    texts: list[Text],
    record: MaskFillingRecord,
    count: int,
    config: ServerConfig,
) -> None:
    num_masks = 0
    for passage, text in zip(passages, texts, strict=True):
        num_here = passage.tokens.count(record.mask_token_id)
        num_masks += num_here
        if not num_here:
            left = " in what was left of it" if passage.num_truncated else ""
            raise InvalidRequestError(
                text.field,
                f"`{text.field}` must hold the mask token {record.mask_token} at least once, but "
                f"there is none{left}",
            )
    if num_masks * count > config.max_tokens_per_request:
        raise InvalidRequestError(
            "top_k",
            f"`top_k` may ask for at most {config.max_tokens_per_request} tokens in all "
            f"(max_tokens_per_request), but {num_masks} masks with {count} tokens each have "
            f"{num_masks * count}",
        )


def _to_result(
    model: ServedModel,
    passage: Passage,
    answer: EmbeddingVector,
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
