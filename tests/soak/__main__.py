"""Soaks a server: minutes of calls of every kind, of faults and of changes; see ``make soak``.

The seed decides which calls, faults and incidents there are; it is printed, and may be given to
have the same again. Exits with 1 if anything that must hold does not, and keeps ledgers and log.
"""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
from pathlib import Path

from rich.console import Console

from soak.checks import find_violations
from soak.models import export_store
from soak.report import show, write
from soak.soak import Settings, run_soak

RESULTS = Path(__file__).parents[1] / "bench" / "results" / "soak.json"


def main() -> None:
    """Runs one soak."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, help="drawn by chance, if not given")
    arguments = parser.parse_args()
    if arguments.minutes <= 0:
        parser.error(f"--minutes must be above 0, but is {arguments.minutes:g}")
    seed = random.SystemRandom().randrange(10**6) if arguments.seed is None else arguments.seed
    console = Console(width=100)
    scratch = Path(tempfile.mkdtemp(prefix="soak-"))
    console.print(f"seed {seed}; ledgers and log are in {scratch}; exporting models")
    export_store(scratch / "sources", scratch / "models")
    (scratch / "run").mkdir()
    settings = Settings(seed, 60 * arguments.minutes)
    records = asyncio.run(run_soak(settings, scratch / "models", scratch / "run"))
    violations = find_violations(records)
    show(records, violations, console)
    write(records, violations, seed, arguments.minutes, RESULTS)
    console.print(f"wrote {RESULTS}")
    if any(violations.values()):
        sys.exit(1)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()
