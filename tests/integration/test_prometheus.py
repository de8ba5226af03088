"""What Prometheus itself makes of the page; needs prometheus and promtool."""

import asyncio
import json
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from processes import read_metrics
from seqserve.v1 import encoding_pb2, generation_pb2
from serving import MakeServer, RunningServer, source

pytestmark = pytest.mark.needs("prometheus", "promtool")

PATIENCE_SECONDS = 60.0
CONFIG = """\
global: {{scrape_interval: 250ms, scrape_timeout: 250ms}}
scrape_configs:
  - job_name: seqserve
    static_configs: [{{targets: ["127.0.0.1:{port}"]}}]
"""


async def make_calls(running: RunningServer) -> None:
    """One of each kind, so that every metric has samples."""
    await running.generation.Generate(
        generation_pb2.GenerateRequest(model_name="tiny", inputs=[source([5, 6, 1])])
    )
    request = generation_pb2.GenerateStreamRequest(
        model_name="tiny", input=source([5, 6, 1], min_new_tokens=4)
    )
    async for _ in running.generation.GenerateStream(request):
        pass
    await running.encoding.Embed(encoding_pb2.EmbedRequest(inputs=["a", "b c"]))


async def test_promtool_finds_nothing_to_say(serving: MakeServer) -> None:
    """Names, types, units and help texts follow Prometheus' conventions."""
    async with serving() as running:
        await make_calls(running)
        page = await read_metrics(running.ports.metrics)
    _, _, body = page.partition("\r\n\r\n")
    checked = await asyncio.to_thread(
        subprocess.run,
        ["promtool", "check", "metrics"],
        input=body,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (checked.stdout + checked.stderr, checked.returncode) == ("", 0)


def query(port: int, expression: str) -> list[Any]:
    """What Prometheus answers; nothing while it does not listen."""
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            result: list[Any] = json.load(reply)["data"]["result"]
            return result
    except OSError:
        return []


async def test_prometheus_scrapes_a_running_server(serving: MakeServer, tmp_path: Path) -> None:
    """The target is up, and a query finds the calls that were made."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with serving() as running:
        await make_calls(running)
        config = tmp_path / "prometheus.yml"
        config.write_text(CONFIG.format(port=running.ports.metrics), encoding="utf-8")
        program = shutil.which("prometheus")
        assert program is not None
        prometheus = await asyncio.create_subprocess_exec(
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not (up := await asyncio.to_thread(query, port, "up == 1")):
                    assert prometheus.returncode is None, "prometheus has ended"
                    await asyncio.sleep(0.1)
            counted = await asyncio.to_thread(
                query, port, 'sum by (model_name) (seqserve_requests_total{code="OK"})'
            )
            name = "seqserve_time_to_first_token_seconds_bucket"
            (slow,) = await asyncio.to_thread(
                query, port, f'histogram_quantile(0.9, {name}{{model_name="tiny"}})'
            )
        finally:
            prometheus.terminate()
            await prometheus.wait()
    assert up[0]["metric"]["job"] == "seqserve"
    found = {one["metric"]["model_name"]: one["value"][1] for one in counted}
    assert found == {"tiny": "2", "sentence": "1"}
    assert float(slow["value"][1]) > 0
