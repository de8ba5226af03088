"""What there is behind the HTTP port: the page, and the calls that it makes."""

import asyncio
import contextlib

import grpc
import structlog

from seqserve.admission import Admission
from seqserve.config import ServerConfig
from seqserve.errors import DeadlineError, SeqserveError
from seqserve.playground.answer import send_error, send_message, send_messages, send_page
from seqserve.playground.connection import GONE, Connection, Head
from seqserve.playground.gateway import Gateway
from seqserve.playground.http_error import HttpError, from_ours
from seqserve.playground.method import METHODS, Method
from seqserve.playground.origin import check_host, check_origin
from seqserve.playground.page import Page
from seqserve.playground.scribe import Scribe
from seqserve.servicers.request_id import request_id_of
from seqserve.time_limit import overdue_message

_log = structlog.get_logger(__name__)
_IDLE_SECONDS = 60.0
"""For the next request on a connection."""
_LAST_SECONDS = 1.0
"""Beyond what a call may take, in which one that took all of it is told so."""
_INTERNAL = HttpError(
    500,
    grpc.StatusCode.INTERNAL,
    "internal error; the server's log has the details under this request id",
)


class Site:
    """Answers requests of connections. Event loop only."""

    def __init__(self, page: Page, gateway: Gateway, config: ServerConfig) -> None:
        self._page = page
        self._gateway = gateway
        self._config = config
        self._names = frozenset(config.playground_hosts.lower().split(",")) - {""}
        # As messages on the gRPC port: what has come and is not answered yet.
        max_bytes = config.max_outstanding_bytes or 32 * config.max_message_bytes
        self._bodies = Admission(max_bytes, noun="bytes of bodies")
        self._scribe = Scribe(max_bytes)

    def close(self) -> None:
        """Answers nothing more."""
        self._scribe.close()

    async def serve(self, connection: Connection) -> None:
        """Answers what comes over a connection until it ends."""
        seconds = self._config.handshake_seconds
        with contextlib.suppress(*GONE):
            while True:
                try:
                    head = await connection.read_head(seconds)
                except HttpError as error:
                    await send_error(connection, error, request_id_of(()))
                    return
                if head is None:
                    return
                await self._answer(connection, head)
                if not connection.can_go_on:
                    return
                seconds = _IDLE_SECONDS

    async def _answer(self, connection: Connection, head: Head) -> None:
        request_id = request_id_of(head.headers)
        # From here to the last byte of the answer: who does not read it would wait for ever.
        most_seconds = self._config.max_request_seconds
        patience = asyncio.timeout(most_seconds + _LAST_SECONDS)
        try:
            async with patience:
                check_host(head.all("host"), self._names)
                if head.path == "/":
                    await send_page(connection, head, self._page)
                    return
                await self._call(connection, head, _find_method(head), request_id)
        except HttpError as error:
            await send_error(connection, error, request_id)
        except SeqserveError as error:
            await send_error(connection, from_ours(error, request_id), request_id)
        except GONE:
            if not patience.expired():
                raise
            late = DeadlineError(overdue_message(most_seconds, "the answer was written"))
            await send_error(connection, from_ours(late, request_id), request_id)
        except Exception as error:
            _log.error("playground failed", request_id=request_id, exc_info=error)
            await send_error(connection, _INTERNAL, request_id)

    async def _call(
        self, connection: Connection, head: Head, method: Method, request_id: str
    ) -> None:
        check_origin(
            head.all("host")[0],
            head.all("origin"),
            head.all("sec-fetch-site"),
            head.all("content-type"),
            is_encrypted=connection.is_encrypted,
        )
        metadata = self._gateway.to_metadata(head, connection.host, request_id)
        num_bytes = _length_of(head, self._config.max_message_bytes)
        # What has come takes places, and not what was announced: that may never come.
        with self._bodies.admit(0) as places:
            seconds = self._config.max_request_seconds
            body = await connection.read_body(num_bytes, seconds, places.resize)
            message = await self._scribe.read(body, method.request_type)
            answers = self._gateway.call(method, message, metadata)
            async with contextlib.aclosing(answers):
                send = send_messages if method.is_streamed else send_message
                await connection.while_watched(send(connection, answers, self._scribe, request_id))


def _find_method(head: Head) -> Method:
    """The method that a request names.

    Raises:
        HttpError: It is none of the page's.
    """
    method = METHODS.get(head.path)
    if method is None:
        raise HttpError(
            404,
            grpc.StatusCode.NOT_FOUND,
            f"nothing is here; the page is at /, and its calls are {', '.join(METHODS)}",
        )
    if head.verb != "POST":
        raise HttpError(
            405,
            grpc.StatusCode.INVALID_ARGUMENT,
            f"calls are made with POST, not with {head.verb}",
            headers=(("allow", "POST"),),
        )
    return method


def _length_of(head: Head, most: int) -> int:
    """The length of the body that comes.

    Raises:
        HttpError: It is not told, or too large.
    """
    lengths = head.all("content-length")
    # Where both are given the length means nothing: a body in chunks ends when it says so.
    if not lengths or head.all("transfer-encoding"):
        raise HttpError(
            411,
            grpc.StatusCode.INVALID_ARGUMENT,
            "the header Content-Length must tell the length of the body, and no Transfer-Encoding "
            "may be beside it",
        )
    num_bytes = int(lengths[0])  # h11 has seen to it that it is one number
    if num_bytes > most:
        raise HttpError(
            413,
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            f"the body has {num_bytes} bytes, but may have {most} (max_message_bytes)",
        )
    return num_bytes
