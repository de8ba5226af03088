"""The command ``bench`` against a real server."""

from __future__ import annotations

import asyncio
import json
import os
import sys

import pytest

from processes import ROOT
from serving import MakeServer

STREAM = "/seqserve.v1.GenerationService/GenerateStream"
EMBED = "/seqserve.v1.EncodingService/Embed"


@pytest.mark.parametrize(
    ("arguments", "method"),
    [
        (["--model", "tiny", "--stream", "--max-new-tokens", "4", "--concurrency", "3"], STREAM),
        (["--model", "sentence", "--rate", "60", "--inputs-per-call", "2"], EMBED),
    ],
    ids=["generate-stream", "embed"],
)
async def test_report_counts_what_the_server_counts(
    serving: MakeServer, arguments: list[str], method: str
) -> None:
    """Every call is answered, and its time is more than what the server spent on it."""
    async with serving() as running:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "seqserve", "bench", "--json"),
            *("--target", f"127.0.0.1:{running.ports.grpc}", *arguments),
            *("--seconds", "1", "--warmup-seconds", "0", "a", "b c"),
            env={**os.environ, "PYTHONPATH": str(ROOT / "service")},
            stdout=asyncio.subprocess.PIPE,
        )
        printed, _ = await process.communicate()
        assert process.returncode == 0
        report = json.loads(printed)
        assert set(report["codes"]) == {"OK"}
        assert running.count_calls("OK", method) == report["codes"]["OK"] > 10
    latency = report["latency_seconds"]
    assert 0 < report["encode_seconds"]["p50"] < latency["p50"] <= latency["p99"]
    assert report["tokens_per_second"] > report["inputs_per_second"] > 0
    if method == STREAM:
        assert report["first_token_seconds"]["p50"] < latency["max"]
