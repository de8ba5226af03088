"""Every query of deploy/monitoring finds data; needs prometheus and promtool."""

import asyncio
import contextlib
import http
import json
import math
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from monitoring_queries import FOLDER, list_queries
from processes import free_port
from served_folders import copy_version, seal
from serving import MakeServer
from varied_caller import NUM_PLACES, PATIENCE_SECONDS, Caller

pytestmark = pytest.mark.needs("prometheus", "promtool")
NUM_CALLS = 20
CONFIG = """\
global: {{scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 500ms}}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: seqserve
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""
CODES = {
    *("OK", "INVALID_ARGUMENT", "NOT_FOUND", "RESOURCE_EXHAUSTED"),
    *("DEADLINE_EXCEEDED", "CANCELLED", "INTERNAL"),
}


async def run_promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What promtool says in the folder of the rules."""
    return await asyncio.to_thread(
        subprocess.run,
        ["promtool", *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("arguments", [("check", "rules.yaml"), ("test", "rules_test.yaml")])
async def test_promtool_agrees_with_the_rules(arguments: tuple[str, str]) -> None:
    """They are well formed, and every alert fires when it must and not before."""
    action, file = arguments
    done = await run_promtool(action, "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr


class Prometheus:
    """A running Prometheus."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def query(self, expression: str) -> list[float]:
        """The values that are numbers; nothing while it is not ready."""
        return await asyncio.to_thread(self._query, expression)

    def _query(self, expression: str) -> list[float]:
        parameters = urllib.parse.urlencode({"query": expression})
        url = f"http://127.0.0.1:{self._port}/api/v1/query?{parameters}"
        try:
            with urllib.request.urlopen(url, timeout=5) as reply:
                result = json.load(reply)["data"]["result"]
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.SERVICE_UNAVAILABLE:
                return []  # it reads what it has stored
            raise AssertionError(f"{expression}: {error.read().decode()}") from error
        except OSError:
            return []
        values = [float(one["value"][1]) for one in result]
        return [value for value in values if not math.isnan(value)]


@contextlib.asynccontextmanager
async def scraping(metrics_port: int, folder: Path) -> AsyncIterator[Prometheus]:
    """Prometheus with the rules, over one server."""
    port = free_port()
    config = folder / "prometheus.yml"
    text = CONFIG.format(port=metrics_port, rules=FOLDER / "rules.yaml")
    config.write_text(text, encoding="utf-8")
    program = shutil.which("prometheus")
    assert program is not None
    process = await asyncio.create_subprocess_exec(
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Prometheus(port)
        assert process.returncode is None, "prometheus has ended"
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


@pytest.fixture
def live(store: Path, tmp_path: Path) -> Path:
    """The store, with one more version of ``long`` to come and one that is damaged."""
    live = tmp_path / "live"
    for name in ("tiny", "long", "sentence"):
        copy_version(store / name / "1", live / name / "1")
    return live


def publish(store: Path, live: Path) -> None:
    """Puts both versions into the store of a running server."""
    copy_version(store / "long" / "1", live / "long" / "2")
    damaged = copy_version(store / "long" / "1", live / "long" / "3")
    whole = (damaged / "encode.onnx").read_bytes()
    (damaged / "encode.onnx").write_bytes(whole[: len(whole) // 2])
    seal(damaged)


async def test_every_query_finds_data(
    serving: MakeServer, store: Path, live: Path, tmp_path: Path
) -> None:
    """After calls of each outcome, at least one number each; NaN is none."""
    settings = {
        "models": live,
        "preflight": False,
        "allow_model_control": True,
        "max_outstanding": NUM_PLACES,
        "max_inputs_per_request": NUM_PLACES,
        "max_failed_steps": 0,
        "response_cache_bytes": 10_000_000,
        "deduplicate": True,
    }
    queries = list_queries()
    async with (
        serving(**settings) as running,
        scraping(running.ports.metrics, tmp_path) as prometheus,
    ):
        publish(store, live)
        caller = Caller(running)
        await caller.load()
        # What is counted for the first time makes a series, and has a rate from the next time on.
        await caller.call_all(1)
        counted = f"count(count by (code) (seqserve_requests_total)) >= {len(CODES)}"
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not await prometheus.query(counted):
                await asyncio.sleep(0.1)
        await caller.call_all(NUM_CALLS - 1)
        assert all(running.count_calls(code) >= NUM_CALLS for code in CODES)
        empty = set(queries)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_SECONDS):
                while empty:
                    await asyncio.sleep(0.2)
                    empty -= {place for place in empty if await prometheus.query(queries[place])}
    assert {place: queries[place] for place in empty} == {}
