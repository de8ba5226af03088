"""Embed: texts to passages, vectors to embeddings of the size and length that was asked for."""

import itertools

from seqserve.config import ServerConfig
from seqserve.errors import InvalidRequestError
from seqserve.passage import Passage
from seqserve.sequence import EncoderOutput
from seqserve.served_model import ServedModel
from seqserve.servicers.cutting import add_windows, resolve_cutting
from seqserve.servicers.embedding_shape import EmbeddingShape, resolve_shape
from seqserve.servicers.input_check import check_count, check_text
from seqserve.servicers.offloading import off_loop
from seqserve.servicers.passages import (
    Text,
    admitted_windows,
    read_passages,
    read_windowed,
)
from seqserve.servicers.prompts import resolve_prompt
from seqserve.servicers.requests import admitted
from seqserve.servicers.token_embeddings import check_token_embeddings, to_token_embeddings
from seqserve.servicers.turn import Turn, predict, slowest, to_timing
from seqserve.task_record import EmbeddingRecord
from seqserve.v1 import encoding_pb2

_NUMBERS_PER_CHARACTER = 8
"""Numbers that are written in the time that a character is tokenized in."""


async def embed(
    model: ServedModel, request: encoding_pb2.EmbedRequest, config: ServerConfig, turn: Turn
) -> list[encoding_pb2.Embedding]:
    """Embeds all texts of a request.

    Raises:
        InvalidRequestError: Something in it is wrong.
        OverloadedError: Too much is outstanding.
    """
    record = model.manifest.embedding
    assert record is not None
    check_count(len(request.inputs), "inputs", config)
    prompt, shape = resolve_prompt(request, record), resolve_shape(request, model)
    cutting = resolve_cutting(request)
    if request.HasField("stride"):
        cutting = add_windows(cutting, request.stride, model)
    _check_returns(request, record)
    with admitted(model, len(request.inputs)):
        texts = []
        for index, text in enumerate(request.inputs):
            check_text(text, f"inputs[{index}]", config)
            texts.append(Text(prompt + text, f"inputs[{index}]"))
        if cutting.stride is None:
            read = await read_passages(
                model, texts, cutting, has_offsets=request.return_token_embeddings
            )
            windows = [[one] for one in read]
        else:
            windows = await read_windowed(model, texts, cutting.stride, config)
        passages = list(itertools.chain(*windows))
        if request.return_token_embeddings:
            check_token_embeddings(passages, record, config)
        with admitted_windows(model, windows):
            answers = await predict(
                model, passages, turn, returns_states=request.return_token_embeddings
            )
        messages = await off_loop(
            sum(len(answer.values) for answer in answers) // _NUMBERS_PER_CHARACTER,
            lambda: _to_embeddings(model, request, windows, answers, shape, len(prompt)),
            stage="postprocess",
        )
    if record.sparse is not None:
        _check_size(messages, config)
    return messages


def _check_returns(request: encoding_pb2.EmbedRequest, record: EmbeddingRecord) -> None:
    """Refuses what would be returned of nothing."""
    if request.return_windows and not request.HasField("stride"):
        raise InvalidRequestError(
            "return_windows",
            "`return_windows` has an effect with `stride` only; set `stride`, or leave it out",
        )
    if not request.return_token_embeddings:
        return
    if request.HasField("stride"):
        raise InvalidRequestError(
            "return_token_embeddings",
            "`return_token_embeddings` cannot be combined with `stride`: a token in two windows "
            "has two states; leave one of them out",
        )
    if record.token_embedding_size is None:
        raise InvalidRequestError(
            "return_token_embeddings",
            "`return_token_embeddings` is not supported for this model, which was exported without "
            "the size of its token embeddings; export it again, or leave it out",
        )


def _check_size(messages: list[encoding_pb2.Embedding], config: ServerConfig) -> None:
    """Refuses replies of weights that are too large; how many there are, only the model knew."""
    num_bytes = sum(message.ByteSize() for message in messages)
    if num_bytes > config.max_message_bytes:
        raise InvalidRequestError(
            "max_active_dims",
            f"the embeddings take {num_bytes} bytes, but a message may have "
            f"{config.max_message_bytes} (max_message_bytes); set or lower `max_active_dims`, or "
            "send fewer texts",
        )


def _to_embeddings(
    model: ServedModel,
    request: encoding_pb2.EmbedRequest,
    windows: list[list[Passage]],
    answers: list[EncoderOutput],
    shape: EmbeddingShape,
    prompt_length: int,
) -> list[encoding_pb2.Embedding]:
    remaining = iter(answers)
    messages = []
    for parts in windows:
        outputs = list(itertools.islice(remaining, len(parts)))
        lengths = [len(part.tokens) for part in parts]
        message = encoding_pb2.Embedding(
            token_count=sum(lengths),
            truncated_token_count=sum(part.num_truncated for part in parts),
            timing=to_timing(slowest(outputs)),
        )
        shape.fill(message, outputs, lengths)
        if request.return_windows:
            for part, output in zip(parts, outputs, strict=True):
                window = _to_window(part, prompt_length)
                shape.fill(window, [output], [len(part.tokens)])
                message.windows.append(window)
        if request.return_token_embeddings:
            message.token_embeddings.extend(
                to_token_embeddings(model, parts[0], outputs[0], prompt_length)
            )
        messages.append(message)
    return messages


def _to_window(part: Passage, prompt_length: int) -> encoding_pb2.EmbeddingWindow:
    """A window and its place in the input, without its vector."""
    places = [place for place in part.offsets if place is not None]
    return encoding_pb2.EmbeddingWindow(
        start_offset=max(0, min((start for start, _ in places), default=0) - prompt_length),
        end_offset=max(0, max((end for _, end in places), default=0) - prompt_length),
        token_count=len(part.tokens),
    )
