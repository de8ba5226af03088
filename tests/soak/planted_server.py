"""The server of a soak with faults in it, all of which the checks must find; for tests of them.

It is run as ``seqserve`` is, with the same command line. Only calls of callers meet the faults, so
that what is answered alone is right. Those who share answers are given those of others.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import collections
import socket
from typing import Any

import grpc
import structlog

import seqserve.model_opening
import seqserve.server
import seqserve.shared_answers
from seqserve.admission import Admission
from seqserve.call_record import current_call
from seqserve.response_key import key_of
from seqserve.sequence import Sequence
from seqserve.servicers.encoding import EncodingServicer
from seqserve.servicers.generation import GenerationServicer
from seqserve.v1 import encoding_pb2, generation_pb2
from soak.server import main

LEAKED_BYTES = 4 * 2**20
"""Of each call that generates."""
_EVERY = {"leak": 1, "keep": 5, "lose": 20, "spoil": 3, "swap": 3, "forget": 1}
"""Which of the calls that a fault may happen to it does happen to."""
_log = structlog.get_logger(__name__)
_numbers = collections.Counter[str]()


def _is_due(fault: str) -> bool:
    """Whether a fault is to happen to the call that is being answered."""
    call = current_call()
    if call is None or not call.request_id.startswith("caller-"):
        return False
    _numbers[fault] += 1
    return _numbers[fault] % _EVERY[fault] == 0


class SpoilingContext:
    """Writes the messages of a stream, but one piece not at all, or the result twice."""

    def __init__(self, context: Any, *, is_doubling: bool) -> None:
        self._context = context
        self._is_doubling = is_doubling
        self._num_messages = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def write(self, message: generation_pb2.GenerateStreamResponse) -> None:
        """Writes one message, or spoils the stream with it."""
        self._num_messages += 1
        if not self._is_doubling and self._num_messages == 2:
            return
        await self._context.write(message)
        if self._is_doubling and message.WhichOneof("event") == "result":
            await self._context.write(message)


class PlantedGenerationServicer(GenerationServicer):
    """Loses answers, keeps memory and files, writes errors, and spoils streams."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept: list[Any] = []
        self._num_spoiled = 0

    async def Generate(  # noqa: N802
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> generation_pb2.GenerateResponse:
        """Generates, mostly."""
        if _is_due("leak"):
            self._kept.append(b"x" * LEAKED_BYTES)
        if _is_due("keep"):
            self._kept.append(socket.socket())
            _log.error("planted error")
        if _is_due("lose"):
            await asyncio.Event().wait()
        return await super().Generate(request, context)

    async def GenerateStream(  # type: ignore[override]  # noqa: N802
        self,
        request: generation_pb2.GenerateStreamRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Streams, mostly as it should."""
        spoiled: Any = context
        if _is_due("spoil"):
            self._num_spoiled += 1
            spoiled = SpoilingContext(context, is_doubling=self._num_spoiled % 2 == 0)
        await super().GenerateStream(request, spoiled)


class PlantedEncodingServicer(EncodingServicer):
    """Hands out answers of others."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._last = encoding_pb2.ClassifyResponse()

    async def Classify(  # noqa: N802
        self, request: encoding_pb2.ClassifyRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> encoding_pb2.ClassifyResponse:
        """Classifies, mostly what it was asked to."""
        response = await super().Classify(request, context)
        last, self._last = self._last, response
        return last if _is_due("swap") else response


class PlantedAdmission(Admission):
    """Forgets to free places of a model, which is none of those that are reloaded."""

    def give_back(self, num_sequences: int) -> None:
        """Frees them, mostly."""
        call = current_call()
        is_forgetful = call is not None and call.labels["model_name"] == "rerank"
        if not (num_sequences and is_forgetful and _is_due("forget")):
            super().give_back(num_sequences)


def find_key(sequence: Sequence, secret: bytes) -> bytes | None:
    """A key that is the same for all inputs of one length."""
    if key_of(sequence, secret) is None:
        return None
    kind = type(sequence.search).__name__
    return f"{kind} {len(sequence.source_tokens)} {sequence.returns_states}".encode()


if __name__ == "__main__":
    setattr(seqserve.server, "GenerationServicer", PlantedGenerationServicer)  # noqa: B010
    setattr(seqserve.server, "EncodingServicer", PlantedEncodingServicer)  # noqa: B010
    setattr(seqserve.model_opening, "Admission", PlantedAdmission)  # noqa: B010
    setattr(seqserve.shared_answers, "key_of", find_key)  # noqa: B010
    main()
