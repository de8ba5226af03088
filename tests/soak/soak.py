"""One soak, from the start of its server to its end: all call while all kinds of things happen.

First every case is answered alone; that is what it must be answered ever after, to the last bit.
"""

import asyncio
import collections
import contextlib
import dataclasses
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from soak.bearer import write_tokens
from soak.caller import MAX_MESSAGE_BYTES, Caller, open_channel
from soak.callers import Callers
from soak.case import MAX_INPUTS, all_cases
from soak.incidents import Incidents
from soak.ledger import Ledger, read_ledger
from soak.plan import PlannedCall, plan_incidents
from soak.records import Expected, Records
from soak.running_server import RunningServer
from soak.server_log import read_server_log
from soak.slope import Sample

_SAMPLE_SECONDS = 0.25
_FLAGS = {
    # Little enough that a burst is too much, and far more than callers have outstanding.
    "max-outstanding": "256",
    "max-inputs-per-request": str(MAX_INPUTS),
    "max-message-bytes": str(MAX_MESSAGE_BYTES),
    # Connections grow old, and are replaced, several times.
    "max-connection-age-seconds": "7",
    # Answers are pushed out by newer ones all the time.
    "response-cache-bytes": "20000",
    "watch-seconds": "0.3",
    "log-format": "json",
    "log-level": "info",
}
_SHARED = {
    "answers that were kept": "seqserve_response_cache_hits_total",
    "answers that were pushed out": "seqserve_response_cache_evictions_total",
    "answers that were computed for several": "seqserve_deduplicated_total",
}
"""What shows that answers were shared, and the metrics that count it."""


@dataclasses.dataclass(frozen=True)
class Settings:
    """How long and how hard."""

    seed: int
    seconds: float
    num_callers: int = 3
    patience_seconds: float = 30.0
    """Until a call that has no answer counts as lost."""
    flags: tuple[str, ...] = ()
    """More of the server's."""
    module: str = "soak.server"
    """That is run as the server."""
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """More of its environment."""


async def run_soak(settings: Settings, models: Path, scratch: Path) -> Records:
    """Runs one.

    Args:
        settings: How.
        models: A store of :func:`soak.models.export_store`, which stays as it is.
        scratch: An empty folder for a copy of it, for ledgers and for the log.
    """
    store = scratch / "store"
    shutil.copytree(models, store)
    flags = [part for name, value in _FLAGS.items() for part in (f"--{name}", value)]
    async with RunningServer(
        settings.module,
        store,
        scratch / "server.log",
        [
            *(*flags, "--allow-model-control", "--deduplicate"),
            *("--token-file", str(write_tokens(scratch / "tokens.toml")), *settings.flags),
        ],
        settings.variables,
    ) as server:
        expected = await _answer_alone(server, scratch / "alone.jsonl")
        before = await server.rest()
        samples: list[Sample] = []
        callers = Callers(
            server.target,
            scratch,
            settings.seed,
            settings.num_callers,
            settings.patience_seconds,
        )
        with Ledger(scratch / "burst.jsonl") as ledger:
            async with callers, open_channel(server.target) as channel:
                burst = Caller("burst", ledger, channel, settings.patience_seconds)
                incidents = Incidents(server, store, burst, callers)
                started_at = time.monotonic()
                async with _sampling(server, samples):
                    plans = plan_incidents(settings.seed, settings.seconds)
                    await asyncio.gather(
                        asyncio.sleep(settings.seconds),
                        *(incidents.run(plan, settings.seconds) for plan in plans),
                    )
                    seconds = time.monotonic() - started_at
                    await callers.finish()
        after = await server.rest()
        shared = {what: await server.read_metric(name) for what, name in _SHARED.items()}
        exit_code, stop_seconds = await server.stop()
    return Records(
        expected=expected,
        books=[read_ledger(path) for path in (*callers.ledgers, scratch / "burst.jsonl")],
        killed=callers.killed,
        crashed=callers.crashed,
        bursts=incidents.bursts,
        num_planted=incidents.num_planted,
        log=read_server_log(server.log),
        samples=samples,
        before=before,
        after=after,
        shared=shared,
        incidents=collections.Counter(incidents.happened),
        damaged=incidents.damaged,
        exit_code=exit_code,
        stop_seconds=stop_seconds,
        seconds=seconds,
    )


async def _answer_alone(server: RunningServer, path: Path) -> dict[tuple[str, int, str], Expected]:
    """What every case is answered by every version, one call after the other."""
    with Ledger(path) as ledger:
        async with open_channel(server.target) as channel:
            caller = Caller("alone", ledger, channel, 60.0)
            number = 0
            for case in all_cases():
                for version in case.versions:
                    planned = PlannedCall(case, "", 0.0, version, is_fragile=False)
                    code = await caller.call(number, planned)
                    assert code == "OK", f"{case.name}: {code}"
                    number += 1
    return {
        (call.case, answer.item, call.version): (answer.code, answer.digest)
        for call in read_ledger(path).calls.values()
        for answer in call.answers
    }


@contextlib.asynccontextmanager
async def _sampling(server: RunningServer, samples: list[Sample]) -> AsyncIterator[None]:
    """Samples memory all the while."""

    async def sample() -> None:
        while True:
            samples.append((time.time(), server.resident_bytes))
            await asyncio.sleep(_SAMPLE_SECONDS)

    task = asyncio.create_task(sample())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
