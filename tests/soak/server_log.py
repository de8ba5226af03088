"""What the server logged: the line of each call, the faults that were planted, and all the rest."""

import collections
import dataclasses
import datetime
import json
from pathlib import Path
from typing import Any

from soak.server import FAULT, STATE_EVENT

_SEVERE = ("warning", "error", "critical")


@dataclasses.dataclass
class ServerLog:
    """One log, read."""

    codes: dict[str, list[str]] = dataclasses.field(
        default_factory=lambda: collections.defaultdict(list)
    )
    """Status codes by the id of their call: one each, if all is well."""
    failed_at: list[float] = dataclasses.field(default_factory=list)
    """When a batch failed as it was told to, in seconds since the epoch."""
    refused: list[str] = dataclasses.field(default_factory=list)
    """Versions that were not loaded."""
    problems: list[str] = dataclasses.field(default_factory=list)
    """Lines that nobody planned: warnings, errors, and what is no line of ours."""
    states: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """What the server said that it held, whenever it was asked."""


def read_server_log(path: Path) -> ServerLog:
    """Reads the JSON lines of a log."""
    log = ServerLog()
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict):
            _file(log, entry, line)
        else:
            log.problems.append(line)
    return log


def _file(log: ServerLog, entry: dict[str, Any], line: str) -> None:
    event = entry.get("event")
    if event == "call":
        log.codes[entry["request_id"]].append(entry["code"])
    elif event == "batch failed" and FAULT in entry.get("exception", ""):
        log.failed_at.append(datetime.datetime.fromisoformat(entry["timestamp"]).timestamp())
    elif event == "model refused":
        log.refused.append(entry["model"])
    elif event == STATE_EVENT:
        log.states.append(entry)
    elif entry.get("level") in _SEVERE:
        log.problems.append(line)
