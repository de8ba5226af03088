"""The simplest honest server around CTranslate2 that a user would write.

grpc.aio, the same messages as seqserve. As many loops as the translator has ``inter_threads`` each
take what has arrived, wait up to 10 ms for more, up to 64 requests, and translate the batch in a
thread. A callback ends each row at its own length, as the end token would with a real model; a
request whose caller has gone is not translated.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any, NamedTuple

import ctranslate2
import grpc

from bench.peer_vocabulary import to_names, to_tokens
from seqserve.v1 import generation_pb2, generation_pb2_grpc

_MAX_BATCH_SIZE = 64
_WINDOW_SECONDS = 0.010
_STOP_SECONDS = 1.0


class _Waiting(NamedTuple):
    """A request and where its answer goes."""

    names: list[str]
    target_length: int
    future: asyncio.Future[list[int]]


class PeerServicer(generation_pb2_grpc.GenerationServiceServicer):
    """Answers ``Generate`` with one input; greedy search only."""

    def __init__(self, folder: str, inter_threads: int, intra_threads: int) -> None:
        self._translator = ctranslate2.Translator(
            folder,
            device="cpu",
            compute_type="int8",
            inter_threads=inter_threads,
            intra_threads=intra_threads,
        )
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._loops = [asyncio.create_task(self._serve()) for _ in range(inter_threads)]

    async def Generate(  # noqa: N802
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> generation_pb2.GenerateResponse:
        """Waits for the batch that takes the request."""
        (source,) = request.inputs
        future: asyncio.Future[list[int]] = asyncio.get_running_loop().create_future()
        self._waiting.put_nowait(
            _Waiting(to_names(source.token_ids.values), source.options.max_new_tokens, future)
        )
        hypothesis = generation_pb2.Hypothesis(token_ids=await future)
        return generation_pb2.GenerateResponse(
            results=[generation_pb2.GenerateResult(hypotheses=[hypothesis])]
        )

    async def GenerateStream(  # type: ignore[override]  # noqa: N802
        self,
        request: generation_pb2.GenerateStreamRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> None:
        """Refuses: nothing here measures streams of this server."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server has no streams")

    async def ScoreTargets(  # noqa: N802
        self,
        request: generation_pb2.ScoreTargetsRequest,
        context: grpc.aio.ServicerContext[Any, Any],
    ) -> generation_pb2.ScoreTargetsResponse:
        """Refuses: nothing here measures scores of this server."""
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "this server has no scores")

    async def close(self) -> None:
        """Ends the loops, and frees the translator while its threads can still be joined."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        del self._translator

    async def _serve(self) -> None:
        while True:
            batch = [one for one in await self._take() if not one.future.done()]
            if not batch:
                continue
            try:
                targets = await asyncio.to_thread(self._translate, batch)
            except Exception as error:
                for one in batch:
                    if not one.future.done():
                        one.future.set_exception(error)
                continue
            for one, target in zip(batch, targets, strict=True):
                if not one.future.done():
                    one.future.set_result(target)

    async def _take(self) -> list[_Waiting]:
        """What arrives within the window, from the first request on."""
        batch = [await self._waiting.get()]
        ends_at = asyncio.get_running_loop().time() + _WINDOW_SECONDS
        while len(batch) < _MAX_BATCH_SIZE:
            try:
                async with asyncio.timeout_at(ends_at):
                    batch.append(await self._waiting.get())
            except TimeoutError:
                break
        return batch

    def _translate(self, batch: list[_Waiting]) -> list[list[int]]:
        lengths = [one.target_length for one in batch]

        def is_last(step: Any) -> bool:
            return bool(step.step + 1 >= lengths[step.batch_id])

        results = self._translator.translate_batch(
            [one.names for one in batch],
            beam_size=1,
            min_decoding_length=max(lengths),
            max_decoding_length=max(lengths),
            callback=is_last,
        )
        return [to_tokens(result.hypotheses[0]) for result in results]


async def serve(folder: str, inter_threads: int, intra_threads: int) -> None:
    """Serves until SIGTERM; the line it prints says where."""
    is_stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, is_stopping.set)
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    servicer = PeerServicer(folder, inter_threads, intra_threads)
    generation_pb2_grpc.add_GenerationServiceServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"ready: grpc=127.0.0.1:{port}", flush=True)
    await is_stopping.wait()
    await server.stop(_STOP_SECONDS)
    await servicer.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
