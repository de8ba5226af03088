"""What all tests share."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from parity_table import ParityTable

_LEFT_OUT = pytest.StashKey[int]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds our options."""
    parser.addoption(
        "--parity-table",
        type=Path,
        help="JSON file that the parity tests write their largest differences to",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests of Prometheus where it is not installed, and tells so at the end."""
    if shutil.which("prometheus") and shutil.which("promtool"):
        return
    left_out = [item for item in items if item.get_closest_marker("prometheus")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
    config.stash[_LEFT_OUT] = len(left_out)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says what was left out."""
    if number := config.stash.get(_LEFT_OUT, 0):
        terminalreporter.write_line(
            f"{number} tests were left out: they need prometheus and promtool, of the Debian "
            "package prometheus"
        )


@pytest.fixture(scope="session")
def parity_table(pytestconfig: pytest.Config) -> Iterator[ParityTable]:
    """Rows that the parity tests fill; written at the end if a file was named."""
    table = ParityTable()
    yield table
    path: Path | None = pytestconfig.getoption("--parity-table")
    if path is not None:
        table.write(path)
