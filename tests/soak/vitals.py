"""What a server process takes and holds, as the system and its own pages tell it."""

import asyncio
from typing import NamedTuple

import psutil
from prometheus_client.parser import text_string_to_metric_families

from processes import read_metrics

_LOOK_SECONDS = 0.1
_AT_REST = (
    "seqserve_requests_in_flight",
    "seqserve_waiting_sequences",
    "seqserve_queue_age_seconds",
    "seqserve_running_sequences",
    "seqserve_live_rows",
    "seqserve_cache_reserved_bytes",
    "seqserve_cache_used_bytes",
)
"""Gauges that are 0 when nobody calls."""


class Vitals(NamedTuple):
    """One look at a server at rest."""

    resident_bytes: int
    num_files: int
    num_threads: int
    gauges: dict[str, float]
    """What is not 0 and should be, by metric and labels."""
    num_counted: int
    """Calls that were counted."""


async def read_vitals(process: psutil.Process, metrics_port: int) -> Vitals:
    """Looks at a server."""
    gauges, num_counted = {}, 0
    page = await read_metrics(metrics_port)
    for family in text_string_to_metric_families(page.partition("\r\n\r\n")[2]):
        for sample in family.samples:
            if sample.name in _AT_REST and sample.value:
                labels = ",".join(filter(None, sample.labels.values()))
                gauges[f"{sample.name} {labels}"] = sample.value
            if sample.name == "seqserve_requests_total":
                num_counted += round(sample.value)
    memory = process.memory_info().rss
    return Vitals(memory, process.num_fds(), process.num_threads(), gauges, num_counted)


async def wait_for_rest(process: psutil.Process, metrics_port: int, seconds: float) -> Vitals:
    """Looks until nothing is held at two looks in a row, or as long as one is willing to wait."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    was_at_rest = False
    while True:
        vitals = await read_vitals(process, metrics_port)
        if (was_at_rest and not vitals.gauges) or loop.time() > deadline:
            return vitals
        was_at_rest = not vitals.gauges
        await asyncio.sleep(_LOOK_SECONDS)
