"""Answers as the ledger keeps them: which version gave them, and a digest of every bit that counts.

Left out is what no two answers have in common: how long they took.
"""

# The types of messages exist only in type stubs.
from __future__ import annotations

import collections
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

import grpc

from soak.case import Case

_PARTS = {
    "would exceed the limit of": "RESOURCE_EXHAUSTED",
    "internal error": "INTERNAL",
    "the deadline passed": "DEADLINE_EXCEEDED",
}
"""Of messages of errors, by which their status is known."""
_CODES = {code.value[0]: code.name for code in grpc.StatusCode}


class Answer(NamedTuple):
    """What one request was answered, alone or in a stream of several."""

    item: int
    """Its place among the requests of its call, from 0."""
    code: str
    """OK, or the status of this request of a stream."""
    version: str
    """Of the model; empty for what is not OK."""
    digest: str
    """Equal for equal answers; empty for what is not OK."""


def read_answers(case: Case, responses: Iterable[Any]) -> list[Answer]:
    """The answers in what a case's call was answered, in their order; a request may have several.

    Nothing is taken for granted: whether there is one for each request is found out later.
    """
    if case.kind == "stream":
        return _read_pieces(responses)
    if case.kind == "embed_stream":
        return [_read_item(item, response) for item, response in enumerate(responses)]
    if case.kind == "infer_stream":
        return _read_tensors(responses)
    return [
        Answer(
            0,
            "OK",
            response.model_version if case.kind == "infer" else response.model.version,
            _digest(response),
        )
        for response in responses
    ]


def _read_pieces(responses: Iterable[Any]) -> list[Answer]:
    """Each result with all pieces before it, whose order, gaps and repetitions the digest shows."""
    answers, version, text, tokens = [], "", "", list[int]()
    for response in responses:
        version = version or response.model.version
        if response.WhichOneof("event") == "piece":
            text += response.piece.text
            tokens += response.piece.token_ids
        else:
            whole = f"{text}\0{tokens}\0{_digest(response.result)}"
            answers.append(Answer(0, "OK", version, _hash(whole.encode())))
    return answers


def _read_item(item: int, response: Any) -> Answer:
    if response.WhichOneof("outcome") == "error":
        return Answer(item, _CODES[response.error.code], "", "")
    return Answer(item, "OK", response.response.model.version, _digest(response.response))


def _read_tensors(responses: Iterable[Any]) -> list[Answer]:
    """Pieces of generated texts belong to the last response with their id."""
    answers = []
    pieces: dict[str, list[bytes]] = collections.defaultdict(list)
    for message in responses:
        response = message.infer_response
        if message.error_message:
            answers.append(Answer(int(response.id), _code_of(message.error_message), "", ""))
            continue
        final = response.parameters.get("triton_final_response")
        is_piece = final is not None and not final.bool_param
        copy = type(response)()
        copy.CopyFrom(response)
        if final is not None:  # one part of a generated text
            for tensor in copy.outputs:
                if tensor.name == "text":
                    pieces[response.id] += tensor.contents.bytes_contents
                    tensor.ClearField("contents")
        if not is_piece:
            whole = b"".join(pieces.pop(response.id, [])) + _digest(copy).encode()
            answers.append(Answer(int(response.id), "OK", response.model_version, _hash(whole)))
    return answers


def _code_of(text: str) -> str:
    """The status of an error that the Open Inference Protocol tells in words alone."""
    for part, code in _PARTS.items():
        if part in text:
            return code
    return text


def _digest(message: Any) -> str:
    copy = type(message)()
    copy.CopyFrom(message)
    _forget_times(copy)
    return _hash(copy.SerializeToString(deterministic=True))


def _forget_times(message: Any) -> None:
    for field, value in message.ListFields():
        if field.name in ("timing", "model"):
            message.ClearField(field.name)
        elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for part in value if hasattr(value, "__len__") else [value]:
                _forget_times(part)


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=12).hexdigest()
