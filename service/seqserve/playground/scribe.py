"""Reads and writes JSON beside the event loop, and no more of it at a time than there may be.

What is large takes seconds: protobuf's JSON is plain Python. It has threads of its own, so that the
texts of other calls, which wait for asyncio's, do not wait for it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from google.protobuf.message import Message

from seqserve.admission import Admission, Places
from seqserve.errors import OverloadedError
from seqserve.playground.http_error import from_ours
from seqserve.playground.message_json import read_message, write_message
from seqserve.servicers.offloading import INLINE_CHARACTERS

_Message = TypeVar("_Message", bound=Message)

_NUM_THREADS = 2
"""One goes on with small ones beside a large one. They share the lock of the interpreter: more
would be no faster, and in everybody's way.
"""
_JSON_FACTOR = 4
"""Bytes of JSON for a byte of a message: 2.9 to 3.9 were measured of weights and embeddings."""


class Scribe:
    """Reads bodies and writes answers. Event loop only."""

    def __init__(self, max_bytes: int) -> None:
        """Prepares.

        Args:
            max_bytes: Of the answers that are being written or sent.
        """
        self._threads = ThreadPoolExecutor(_NUM_THREADS, "playground")
        self._answers = Admission(max_bytes, noun="bytes of answers")

    async def read(self, body: bytes, kind: type[_Message]) -> _Message:
        """Makes a message of a body.

        Raises:
            HttpError: It is no JSON, or no such message; the error says where.
        """
        if len(body) <= INLINE_CHARACTERS:
            return read_message(body, kind)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, read_message, body, kind)

    @contextlib.asynccontextmanager
    async def writing(self, message: Message, request_id: str) -> AsyncIterator[bytes]:
        """A message in one line, without its end; it is to be sent before the block ends.

        Args:
            message: The message.
            request_id: Of the request that it answers.

        Raises:
            HttpError: Too much is being written and sent.
        """
        num_bytes = message.ByteSize()
        if num_bytes <= INLINE_CHARACTERS:  # of all connections little, and not worth a refusal
            yield write_message(message)
            return
        with self._answers.admit(0) as places:
            self._hold(places, num_bytes * _JSON_FACTOR, request_id)
            loop = asyncio.get_running_loop()
            line = await loop.run_in_executor(self._threads, write_message, message)
            self._hold(places, len(line), request_id)
            yield line

    def close(self) -> None:
        """Writes and reads nothing more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _hold(self, places: Places, num_bytes: int, request_id: str) -> None:
        # One that is larger than all may be comes when it is alone: it could not come later either.
        try:
            places.resize(min(num_bytes, self._answers.max_outstanding))
        except OverloadedError as error:
            raise from_ours(error, request_id) from error
