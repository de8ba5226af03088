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
PROTO, SERVICE = ROOT / "proto", ROOT / "service"
SOURCES = (
    (PROTO / "seqserve" / "v1", str(PROTO), "seqserve/v1"),
    (
        PROTO / "inference",
        f"seqserve/inference_protocol/v2={PROTO / 'inference'}",
        "seqserve/inference_protocol/v2",
    ),
)
"""Folders of protos, with the include path of the generator and the folder of the stubs."""


def main() -> int:
    """Generates into a temporary folder and compares; returns the exit code."""
    num_files, differing = 0, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for protos, include, stubs in SOURCES:
            _generate(protos, include, folder)
            expected = {file.name for file in (folder / stubs).iterdir()}
            committed = {file.name for file in (SERVICE / stubs).glob("*_pb2*")}
            differing += [
                f"{stubs}/{file}"
                for file in sorted(expected | committed)
                if file not in expected & committed
                or not filecmp.cmp(folder / stubs / file, SERVICE / stubs / file, shallow=False)
            ]
            num_files += len(expected)
    if differing:
        print(f"stubs are out of date, run `make proto`: {', '.join(differing)}")
        return 1
    print(f"stubs are up to date: {num_files} files")
    return 0


def _generate(protos: Path, include: str, folder: Path) -> None:
    outputs = [f"--{kind}={folder}" for kind in ("python_out", "grpc_python_out")]
    outputs += [f"--{kind}=quiet:{folder}" for kind in ("mypy_out", "mypy_grpc_out")]
    # protoc finds its plugins beside this interpreter.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run(
        [
            *(sys.executable, "-m", "grpc_tools.protoc", "-I", include),
            *outputs,
            *map(str, sorted(protos.glob("*.proto"))),
        ],
        check=True,
        env={**os.environ, "PATH": path},
    )


if __name__ == "__main__":
    sys.exit(main())
