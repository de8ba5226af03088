"""A client on a host of its own: holds streams open, tells how they end, and calls again.

Run as ``python partitioned_client.py HOST:PORT KEEPALIVE_SECONDS``. Writes JSON objects, one a
line: one when each stream is open, one when each has ended, and one for the call that is made after
a line comes in.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator

from seqserve.client import AsyncClient, CallError

STREAMS = ("silent", "busy")
"""One sends a text and is silent then, the other sends without end."""


async def _texts(kind: str) -> AsyncIterator[list[str]]:
    yield ["a"]
    while kind == "busy":
        yield ["b c"]
        await asyncio.sleep(0.01)
    await asyncio.Event().wait()


def _tell(**event: object) -> None:
    print(json.dumps(event), flush=True)


async def _hold(kind: str, target: str, keepalive_seconds: float) -> None:
    async with AsyncClient(
        target,
        keepalive_seconds=keepalive_seconds,
        keepalive_timeout_seconds=keepalive_seconds,
        retries=False,
    ) as client:
        try:
            is_open = False
            async for _ in client.embed_stream(_texts(kind), model="sentence"):
                if not is_open:
                    _tell(stream=kind, state="open")
                is_open = True
            _tell(stream=kind, state="ended", code="OK")
        except CallError as error:
            _tell(stream=kind, state="ended", code=error.code, message=error.message)


async def _run(target: str, keepalive_seconds: float) -> None:
    await asyncio.gather(*(_hold(kind, target, keepalive_seconds) for kind in STREAMS))
    await asyncio.to_thread(sys.stdin.readline)
    async with AsyncClient(target) as client:
        embeddings = await client.embed(["a"], model="sentence")
    _tell(state="called", number=len(embeddings.vectors))


if __name__ == "__main__":
    asyncio.run(_run(sys.argv[1], float(sys.argv[2])))
