"""What any page tells readers to type is there to be run."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    path
    for pattern in ("*.md", "deploy/*.md", "export/**/*.md", "tests/*.md")
    for path in ROOT.glob(pattern)
)
SOURCE_ROOTS = (ROOT / "service", ROOT / "export")
"""What is installed, so that Python finds it without a path."""
TARGETS = re.findall(
    r"^([a-z-]+):.*##", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
)


def find_code(text: str) -> str:
    """What stands in blocks and between backticks, a line for each."""
    found = re.findall(r"```\w*\n(.*?)```|`([^`]+)`", text, re.DOTALL)
    return "\n".join(block or " ".join(span.split()) for block, span in found)


CODE = {str(path.relative_to(ROOT)): find_code(path.read_text(encoding="utf-8")) for path in PAGES}


def find(pattern: str) -> list[tuple[str, str]]:
    """Where a command stands, and what its pattern catches."""
    return [(page, name) for page, code in CODE.items() for name in re.findall(pattern, code)]


def test_commands_are_shown() -> None:
    """Were the layout of pages to change, the tests below would find nothing to look at."""
    assert {"README.md", "CONTRIBUTING.md", "deploy/README.md", "tests/FAULTS.md"} <= set(CODE)
    assert TARGETS
    assert find_code("x `make a\nB=c` y\n```sh\nmake d\n```\n") == "make a B=c\nmake d\n"


@pytest.mark.parametrize(("page", "target"), find(r"\bmake ([a-z][a-z-]*)"))
def test_targets_of_make_are_there(page: str, target: str) -> None:
    """`make help` lists them."""
    assert target in TARGETS, page


@pytest.mark.parametrize(("page", "part"), find(r"\bPART=(\w+)"))
def test_parts_of_the_benchmark_can_be_run(page: str, part: str) -> None:
    """They are modules of their folder that do something when they are run."""
    text = (ROOT / "tests" / "bench" / f"{part}.py").read_text(encoding="utf-8")
    assert 'if __name__ == "__main__":' in text, page


@pytest.mark.parametrize(("page", "module"), find(r"\bpython -m ([\w.]+)"))
def test_modules_are_installed(page: str, module: str) -> None:
    """Others need a path that nobody would guess: `make` sets it."""
    parts = Path(*module.split("."))
    names = (parts.with_suffix(".py"), parts / "__main__.py")
    assert any((root / name).is_file() for root in SOURCE_ROOTS for name in names), page
