"""Twice as much as the server can do: it does as much as it can, in time, and refuses the rest."""

from __future__ import annotations

import asyncio
import statistics
from pathlib import Path

from overload import OVERLOAD_SECONDS, Load
from processes import ROOT, start_process, stop_process, wait_until_ready
from seqserve.v1 import generation_pb2
from serving import source

NUM_INPUTS = 4
"""Of a call, so that what calls cost their callers is little beside what they cost the model."""
REQUESTS = [
    generation_pb2.GenerateRequest(
        model_name="long",
        inputs=[source([7] * 20, min_new_tokens=length, max_new_tokens=length)] * NUM_INPUTS,
    )
    for length in range(10, 31)
]
NUM_CALLERS = 32
MAX_BATCH_SIZE = 64
"""Half of what is outstanding, so that a row that is done makes room for one that waits."""
DEADLINE_SECONDS = 5.0


async def test_twice_the_load_is_answered_as_the_load_it_can_bear(store: Path) -> None:
    """For 30 seconds: nine tenths of the capacity at least, no call late, refusals at once."""
    process = await asyncio.to_thread(
        start_process,
        store,
        *("--threads", "1", "--no-preflight", "--log-level", "warning"),
        *("--max-outstanding", str(NUM_CALLERS * NUM_INPUTS)),
        *("--max-inputs-per-request", str(NUM_INPUTS)),
        *("--max-batch-size", str(MAX_BATCH_SIZE)),
        program=(str(ROOT / "tests" / "paced_server.py"),),
    )
    ports = await wait_until_ready(process)
    load = Load(ports, REQUESTS, num_callers=NUM_CALLERS, deadline_seconds=DEADLINE_SECONDS)
    overload = await load.run(fill_seconds=2.0, capacity_seconds=6.0)
    await stop_process(process)
    assert set(overload.codes) == {"OK", "RESOURCE_EXHAUSTED"}
    assert overload.sending_seconds < OVERLOAD_SECONDS * 1.05, "less load than it should have been"
    assert overload.goodput >= 0.9 * overload.capacity
    assert overload.slowest_seconds <= DEADLINE_SECONDS
    assert statistics.median(overload.refusal_seconds) < 0.02
    assert max(overload.probe_seconds) < 1.0
