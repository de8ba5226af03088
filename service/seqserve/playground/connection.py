"""One HTTP/1.1 connection: requests in, answers out, one after the other.

h11 knows the protocol and does no I/O; this is the I/O. A request whose answer is on its way is
watched: when its browser leaves, the work is cancelled.

Source: h11's documentation, https://h11.readthedocs.io, and RFC 9112.
"""

import asyncio
import contextlib
import dataclasses
import email.utils
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from collections.abc import Sequence as Items
from typing import Any

import grpc
import h11

from seqserve.errors import UnavailableError
from seqserve.playground.http_error import HttpError

_MAX_HEAD_BYTES = 16_384
"""Of a request line with its headers, as metadata on the gRPC port."""
_READ_BYTES = 65_536
_PAUSE_SECONDS = 5.0
"""For a body that has begun to go on: what has come of it holds places."""
_WRITE_BYTES = 65_536
"""At a time, so that no more than that waits for the other side beside the answer itself."""
_WRITE_SECONDS = 30.0
"""For a browser to take so much of it; then it counts as gone."""
_LISTEN_SECONDS = 1.0
"""To bodies that are not read, so that their senders get to see why."""
GONE = (ConnectionError, TimeoutError, ssl.SSLError)
"""What reading and writing meet when the other side has left."""


@dataclasses.dataclass(frozen=True, slots=True)
class Head:
    """A request without its body."""

    verb: str
    path: str
    """Without a query, which nothing here takes."""
    headers: Items[tuple[str, str]]
    """Names in lower case."""

    def all(self, name: str) -> list[str]:
        """The values of a header."""
        return [value for key, value in self.headers if key == name]


class Connection:
    """A connection that was accepted, and has shaken hands. Event loop only."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, is_encrypted: bool
    ) -> None:
        self._reader = reader
        self._writer = writer
        self.is_encrypted = is_encrypted
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEAD_BYTES)
        self.has_answered = False
        """Whether the answer to the latest request has begun."""
        self.waits_since = 0.0
        """When it began to wait for the latest request, on the loop's clock."""
        self._is_last = False
        self._patience: asyncio.Timeout | None = None
        """With a request that has not come yet, or not all of it."""

    @property
    def host(self) -> str:
        """The address of the other side."""
        name: tuple[Any, ...] | None = self._writer.get_extra_info("peername")
        return str(name[0]) if name else ""

    async def read_head(self, seconds: float) -> Head | None:
        """Waits for a request; None if none comes within the time, or ever.

        Raises:
            HttpError: What comes is no request.
        """
        if self._http.our_state is h11.DONE:
            self._http.start_next_cycle()
        self.has_answered = False
        self.waits_since = asyncio.get_running_loop().time()
        try:
            async with self._waiting(seconds):
                event = await self._next_event()
        except TimeoutError:
            return None
        if not isinstance(event, h11.Request):
            return None
        target = event.target.decode("ascii")
        if not {b"content-length", b"transfer-encoding"} & {key for key, _ in event.headers}:
            await self._next_event()  # the end of the request, which has come with its head
        headers = [(key.decode("ascii"), value.decode("latin-1")) for key, value in event.headers]
        return Head(event.method.decode("ascii"), target.partition("?")[0], headers)

    async def read_body(
        self, num_bytes: int, seconds: float, admit: Callable[[int], object]
    ) -> bytes:
        """Reads a body of known length.

        Args:
            num_bytes: The length.
            seconds: For all of it. It must not pause for longer than a few either.
            admit: Called with the number of bytes that have come whenever there are more; what it
                raises ends the body.

        Raises:
            HttpError: It does not come within the time, is longer, or is no body.
            UnavailableError: The server stops, and nothing has come to be answered.
        """
        body = bytearray()
        try:
            async with self._waiting(seconds):
                while isinstance(event := await self._next_part(), h11.Data):
                    body += event.data
                    if len(body) > num_bytes:
                        raise HttpError(
                            400,
                            grpc.StatusCode.INVALID_ARGUMENT,
                            f"the body has more than the {num_bytes} bytes that were announced",
                        )
                    admit(len(body))
        except TimeoutError:
            if self._is_last:
                raise UnavailableError("the server is shutting down; try another replica") from None
            raise HttpError(
                408,
                grpc.StatusCode.DEADLINE_EXCEEDED,
                f"the body has not come within {seconds:g} seconds, or has paused for "
                f"{_PAUSE_SECONDS:g} ({len(body)} of {num_bytes} bytes have)",
            ) from None
        if not isinstance(event, h11.EndOfMessage):
            raise ConnectionResetError("the connection ended within a body")
        return bytes(body)

    async def send_head(self, code: int, headers: Items[tuple[str, str]]) -> None:
        """Begins an answer; without a length among the headers it ends with ``send_end``."""
        self.has_answered = True
        date = email.utils.formatdate(usegmt=True)
        self._write(h11.Response(status_code=code, headers=[("date", date), *headers]))

    async def send_data(self, data: bytes) -> None:
        """Sends a part of the body, and waits until there is room for the next."""
        for begin in range(0, len(data), _WRITE_BYTES):
            self._write(h11.Data(data=data[begin : begin + _WRITE_BYTES]))
            async with asyncio.timeout(_WRITE_SECONDS):
                await self._writer.drain()

    async def send_end(self) -> None:
        """Ends the answer."""
        self._write(h11.EndOfMessage())
        async with asyncio.timeout(_WRITE_SECONDS):
            await self._writer.drain()

    async def while_watched(self, work: Coroutine[Any, Any, None]) -> None:
        """Does work for a request that has been read; cancels it when the other side leaves.

        Raises:
            ConnectionResetError: It left.
        """
        task = asyncio.create_task(work)
        departure = asyncio.create_task(self._wait_for_departure())
        try:
            await asyncio.wait((task, departure), return_when=asyncio.FIRST_COMPLETED)
            if not task.done():
                raise ConnectionResetError("the caller has left")
            await task
        finally:
            for one in (task, departure):
                one.cancel()
            await asyncio.gather(task, departure, return_exceptions=True)

    @property
    def can_go_on(self) -> bool:
        """Whether another request may follow."""
        are_done = self._http.our_state is h11.DONE and self._http.their_state is h11.DONE
        return are_done and not self._is_last

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request, and has not been told to wait no more."""
        is_waiting = self._patience is not None and self._http.their_state is h11.IDLE
        return is_waiting and not self._is_last

    def finish(self) -> None:
        """Lets the answer that is under way be the last, and waits for nothing else to come."""
        self._is_last = True
        if self._patience is not None:
            self._patience.reschedule(0.0)

    @property
    def has_read_all(self) -> bool:
        """Whether nothing of the latest request is still to come."""
        return self._http.their_state is not h11.SEND_BODY

    async def close(self) -> None:
        """Ends the connection; takes what the other side still sends, for a moment."""
        with contextlib.suppress(*GONE, RuntimeError):
            if not self.has_read_all and self._writer.can_write_eof():
                self._writer.write_eof()
                async with asyncio.timeout(_LISTEN_SECONDS):
                    while await self._reader.read(_READ_BYTES):
                        pass
        self._writer.close()
        with contextlib.suppress(*GONE):
            async with asyncio.timeout(_LISTEN_SECONDS):
                await self._writer.wait_closed()
        self._writer.transport.abort()

    @contextlib.asynccontextmanager
    async def _waiting(self, seconds: float) -> AsyncIterator[None]:
        """Bounds a wait for the other side; ``finish`` ends it."""
        try:
            async with asyncio.timeout(0.0 if self._is_last else seconds) as self._patience:
                yield
        finally:
            self._patience = None

    def _write(self, event: h11.Response | h11.Data | h11.EndOfMessage) -> None:
        # A list would be asked for one buffer; none but a closed connection has none.
        self._writer.write(self._http.send(event) or b"")

    async def _next_part(self) -> h11.Event | type[h11.PAUSED]:
        async with asyncio.timeout(_PAUSE_SECONDS):
            return await self._next_event()

    async def _next_event(self) -> h11.Event | type[h11.PAUSED]:
        """The next thing that the other side says.

        Raises:
            HttpError: It is not HTTP.
        """
        while True:
            try:
                event = self._http.next_event()
            except h11.RemoteProtocolError as error:
                raise HttpError(
                    error.error_status_hint,
                    grpc.StatusCode.INVALID_ARGUMENT,
                    f"the request is no HTTP/1.1 that is understood here: {error}",
                ) from error
            if event is not h11.NEED_DATA:
                return event  # type: ignore[return-value]  # h11 types its signals loosely
            if self._http.they_are_waiting_for_100_continue:
                proceed = h11.InformationalResponse(status_code=100, headers=[])
                self._writer.write(self._http.send(proceed) or b"")
            self._http.receive_data(await self._reader.read(_READ_BYTES))

    async def _wait_for_departure(self) -> None:
        """Returns when the other side has closed the connection.

        A next request that it sends already is kept; from then on nobody looks.
        """
        with contextlib.suppress(*GONE):
            data = await self._reader.read(_READ_BYTES)
            self._http.receive_data(data)
            if data:
                await asyncio.Event().wait()
