"""What all tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from parity_table import ParityTable


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds our options."""
    parser.addoption(
        "--parity-table",
        type=Path,
        help="JSON file that the parity tests write their largest differences to",
    )


@pytest.fixture(scope="session")
def parity_table(pytestconfig: pytest.Config) -> Iterator[ParityTable]:
    """Rows that the parity tests fill; written at the end if a file was named."""
    table = ParityTable()
    yield table
    path: Path | None = pytestconfig.getoption("--parity-table")
    if path is not None:
        table.write(path)
