"""The server with a leak: what it keeps of each call shows that ``bench.long_run`` would see one.

It is run as ``seqserve`` is, with the same command line.
"""

# The generic types of grpc exist only in its type stubs.
from __future__ import annotations

from typing import Any

import grpc

import seqserve.server
from seqserve.__main__ import main
from seqserve.servicers.generation import GenerationServicer
from seqserve.v1 import generation_pb2

LEAKED_BYTES = 1024
"""Of each call."""


class LeakingServicer(GenerationServicer):
    """Keeps some bytes of each call that answers at once; streams and scores are as ever."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._kept: list[bytearray] = []

    async def Generate(  # noqa: N802
        self, request: generation_pb2.GenerateRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> generation_pb2.GenerateResponse:
        """Generates, and forgets nothing."""
        self._kept.append(bytearray(LEAKED_BYTES))
        return await super().Generate(request, context)


if __name__ == "__main__":
    setattr(seqserve.server, "GenerationServicer", LeakingServicer)  # noqa: B010
    main(prog_name="leaking_server")
