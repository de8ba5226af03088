"""The simplest honest server around sentence-transformers that a user would write.

grpc.aio, the same messages as seqserve. A loop takes what has arrived, waits up to 10 ms for more,
up to 64 texts, and embeds the batch in a thread.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any, NamedTuple

import grpc
import torch
from sentence_transformers import SentenceTransformer

from seqserve.v1 import encoding_pb2

_MAX_BATCH_SIZE = 64
_WINDOW_SECONDS = 0.010
_STOP_SECONDS = 1.0
_NUM_THREADS = 2


class _Waiting(NamedTuple):
    """A text and where its vector goes."""

    text: str
    future: asyncio.Future[list[float]]


class _Batcher:
    """Takes texts one by one and embeds them together."""

    def __init__(self, folder: str) -> None:
        torch.set_num_threads(_NUM_THREADS)
        self._model = SentenceTransformer(folder, device="cpu")
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._loop = asyncio.create_task(self._serve())

    async def embed(
        self, request: encoding_pb2.EmbedRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> encoding_pb2.EmbedResponse:
        """Waits for the batch that takes the request."""
        (text,) = request.inputs
        future: asyncio.Future[list[float]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(_Waiting(text, future))
        return encoding_pb2.EmbedResponse(embeddings=[encoding_pb2.Embedding(values=await future)])

    async def close(self) -> None:
        """Ends the loop."""
        self._loop.cancel()
        await asyncio.gather(self._loop, return_exceptions=True)

    async def _serve(self) -> None:
        while True:
            batch = await self._take()
            texts = [one.text for one in batch]
            try:
                vectors = await asyncio.to_thread(self._model.encode, texts, batch_size=len(texts))
            except Exception as error:
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(error)
                continue
            for one, vector in zip(batch, vectors.tolist(), strict=True):
                if not one.future.done():
                    one.future.set_result(vector)

    async def _take(self) -> list[_Waiting]:
        """What arrives within the window, from the first text on."""
        batch = [await self._waiting.get()]
        ends_at = asyncio.get_running_loop().time() + _WINDOW_SECONDS
        while len(batch) < _MAX_BATCH_SIZE:
            try:
                async with asyncio.timeout_at(ends_at):
                    batch.append(await self._waiting.get())
            except TimeoutError:
                break
        return batch


async def serve(folder: str) -> None:
    """Serves until SIGTERM; the line it prints says where."""
    is_stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_stopping.set)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    batcher = _Batcher(folder)
    service = encoding_pb2.DESCRIPTOR.services_by_name["EncodingService"].full_name
    handler = grpc.unary_unary_rpc_method_handler(
        batcher.embed,
        request_deserializer=encoding_pb2.EmbedRequest.FromString,
        response_serializer=encoding_pb2.EmbedResponse.SerializeToString,
    )
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {"Embed": handler})]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: grpc=127.0.0.1:{port}", flush=True)
    await is_stopping.wait()
    await server.stop(_STOP_SECONDS)
    await batcher.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
