"""Calls of Triton's client, made by :mod:`triton_process`."""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any, Literal

from processes import ROOT
from serving import RunningServer

PATIENCE_SECONDS = 60.0
Kind = Literal["sync", "aio"]
"""Which of its clients."""


async def call(running: RunningServer, kind: Kind, *calls: dict[str, Any]) -> list[Any]:
    """What Triton's client returns for calls."""
    target = f"127.0.0.1:{running.ports.grpc}"
    results: list[Any] = await work({"target": target, "kind": kind, "calls": calls})
    return results


async def work(job: dict[str, Any]) -> Any:
    """What Triton's client finds out, in a process of its own."""
    paths = [str(ROOT / "service"), *filter(None, [os.environ.get("PYTHONPATH")])]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, str(Path(__file__).with_name("triton_process.py"))),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, _ = await process.communicate(json.dumps(job).encode())
    assert process.returncode == 0
    return json.loads(output)


def infer(model: str, *inputs: tuple[str, str, list[Any]], **arguments: Any) -> dict[str, Any]:
    """One call of ``infer``."""
    return {"method": "infer", "model_name": model, "inputs": inputs, **arguments}


def texts(*values: str, name: str = "text") -> tuple[str, str, list[Any]]:
    """A tensor of texts."""
    return (name, "BYTES", list(values))
