"""The server as a process of its own."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def start_process(store: Path, *flags: str) -> subprocess.Popen[str]:
    """Starts ``seqserve serve`` on free ports."""
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "seqserve", "serve", "--models", str(store)),
            *("--port", "0", "--health-port", "0", "--metrics-port", "0", *flags),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "service")},
    )


async def read_metrics(port: int) -> str:
    """The page Prometheus scrapes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.0\r\n\r\n")
    page = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    return page
