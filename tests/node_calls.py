"""Calls that grpc-js makes, in a process of Node."""

from __future__ import annotations

import asyncio
import base64
import json
import os
from collections.abc import Sequence as Items
from pathlib import Path

from foreign_call import ForeignCall, Outcome, to_outcome
from requirement import PROGRAMS

_ROOT = Path(__file__).parents[1]
_PATIENCE_SECONDS = 60.0


async def call_from_node(
    targets: Items[str], calls: Items[ForeignCall]
) -> list[dict[str, Outcome]]:
    """Makes all calls to each target; returns what came of them by their names."""
    work = {
        "protos": str(_ROOT / "proto"),
        "targets": list(targets),
        "calls": [call.to_json() for call in calls],
    }
    process = await asyncio.create_subprocess_exec(
        *("node", str(Path(__file__).parent / "interop" / "calls.js")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PATH": os.environ["PATH"], "NODE_PATH": str(PROGRAMS / "node_modules")},
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            output, _ = await process.communicate(json.dumps(work).encode())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    return [
        {call.name: _read(call, one) for call, one in zip(calls, found, strict=True)}
        for found in json.loads(output)
    ]


def _read(call: ForeignCall, found: dict[str, object]) -> Outcome:
    replies, trailers = found["replies"], found["trailers"]
    code, message = found["code"], found["message"]
    assert isinstance(replies, list)
    assert isinstance(trailers, dict)
    assert isinstance(code, int)
    assert isinstance(message, str)
    values = {key: base64.b64decode(value) for key, value in trailers.items()}
    return to_outcome(
        call,
        code,
        message,
        [base64.b64decode(reply) for reply in replies],
        {key: value if key.endswith("-bin") else value.decode() for key, value in values.items()},
    )
