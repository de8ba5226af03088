"""Checks that the committed stubs are what the committed protos generate.

Run by ``make check``; a script rather than a test, since it needs the generator and nothing else.
"""

import filecmp
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
STUBS = ROOT / "service" / "seqserve" / "v1"


def main() -> int:
    """Generates into a temporary folder and compares; returns the exit code."""
    protos = sorted((ROOT / "proto" / "seqserve" / "v1").glob("*.proto"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [
            f"--{kind}={folder}"
            for kind in (
                "python_out",
                "grpc_python_out",
            )
        ] + [f"--{kind}=quiet:{folder}" for kind in ("mypy_out", "mypy_grpc_out")]
        # protoc finds its plugins beside this interpreter.
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        subprocess.run(
            [
                *(sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "proto")),
                *outputs,
                *map(str, protos),
            ],
            check=True,
            env={**os.environ, "PATH": path},
        )
        fresh = Path(folder) / "seqserve" / "v1"
        expected = {file.name for file in fresh.iterdir()}
        committed = {file.name for file in STUBS.glob("*_pb2*")}
        differing = expected ^ committed
        differing |= {
            name
            for name in expected & committed
            if not filecmp.cmp(fresh / name, STUBS / name, shallow=False)
        }
    if differing:
        print(f"stubs are out of date, run `make proto`: {', '.join(sorted(differing))}")
        return 1
    print(f"stubs are up to date: {len(expected)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
