"""What a soak did and found, for people and for programs."""

import collections
import json
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.machine import describe_machine, installed_versions
from soak.checks import bytes_per_1000_calls, max_bytes_per_1000_calls
from soak.records import Records

_MAX_SHOWN = 10
"""Violations of one check that are shown; the file has all."""
_PACKAGES = ("grpcio", "numpy", "onnxruntime", "protobuf", "tokenizers")


def show(records: Records, violations: dict[str, list[str]], console: Console) -> None:
    """Prints two tables, and what was violated."""
    calls = Table("what was done to calls", "calls", "how they ended")
    ends = _count_ends(records)
    for fault in sorted(ends):
        told = ", ".join(f"{code} {number}" for code, number in sorted(ends[fault].items()))
        calls.add_row(fault, str(ends[fault].total()), told)
    console.print(calls)
    incidents = ", ".join(f"{kind} {n}" for kind, n in sorted(records.incidents.items()))
    console.print(
        f"{records.num_calls} calls in {records.seconds:.0f} s; {incidents}; memory grew by "
        f"{bytes_per_1000_calls(records) / 2**20:+.2f} MiB in 1,000 calls"
    )
    console.print(", ".join(f"{number:g} {what}" for what, number in records.shared.items()))
    checks = Table("what must hold", "violations")
    for name, found in violations.items():
        checks.add_row(name, str(len(found)) if found else "none")
    console.print(checks)
    for name, found in violations.items():
        for violation in found[:_MAX_SHOWN]:
            console.print(f"{name}: {violation}", style="red", markup=False)


def write(
    records: Records, violations: dict[str, list[str]], seed: int, minutes: float, path: Path
) -> None:
    """Writes the result file."""
    result: dict[str, Any] = {
        "machine": describe_machine(),
        "versions": installed_versions(*_PACKAGES),
        "seed": seed,
        "minutes": minutes,
        "seconds": records.seconds,
        "calls": records.num_calls,
        "calls_by_kind": dict(sorted(_count_kinds(records).items())),
        "ends_by_fault": {
            fault: dict(sorted(codes.items()))
            for fault, codes in sorted(_count_ends(records).items())
        },
        "answers": sum(len(call.answers) for book in records.books for call in book.calls.values()),
        "shared": records.shared,
        "incidents": dict(sorted(records.incidents.items())),
        "cut_connections": sum(len(book.cuts) for book in records.books),
        "bytes_per_1000_calls": bytes_per_1000_calls(records),
        "max_bytes_per_1000_calls": max_bytes_per_1000_calls(records),
        "resident_bytes": [round(size) for _, size in records.samples[:: _stride(records)]],
        "before": records.before._asdict(),
        "after": records.after._asdict(),
        "exit_code": records.exit_code,
        "stop_seconds": records.stop_seconds,
        "violations": violations,
    }
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _stride(records: Records) -> int:
    """Leaves about a hundred samples."""
    return max(1, len(records.samples) // 100)


def _count_kinds(records: Records) -> collections.Counter[str]:
    return collections.Counter(
        call.case.partition("/")[0] for book in records.books for call in book.calls.values()
    )


def _count_ends(records: Records) -> dict[str, collections.Counter[str]]:
    """Status codes by what was done to the calls; calls of killed callers may have none."""
    ends: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for book in records.books:
        for call in book.calls.values():
            fault = call.fault.partition("+")[0] or "nothing"
            ends[fault][call.ends[0][0] if call.ends else "killed"] += 1
    return ends
