"""What all tests share."""

import collections
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from parity_table import ParityTable
from requirement import REQUIREMENTS, add_programs_to_path, missing

_LEFT_OUT = pytest.StashKey[dict[str, int]]()
"""How many tests, by what they need."""
_OUTPUT_KEY = "left_out"
"""Of what one of several processes tells."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds our options."""
    parser.addoption(
        "--parity-table",
        type=Path,
        help="JSON file that the parity tests write their largest differences to",
    )
    parser.addoption(
        "--leave-nothing-out",
        action="store_true",
        help="fail where a program or a right is missing that tests need",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Finds the programs that were fetched; refuses to go on where one may not be missing."""
    add_programs_to_path()
    required = [name for name, one in REQUIREMENTS.items() if not one.is_of_machine]
    if config.getoption("--leave-nothing-out") and (absent := missing(required)):
        raise pytest.UsageError(f"tests would be left out for want of {_sources(absent)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out tests whose needs are not met."""
    left_out = collections.Counter[str]()
    kept, deselected = [], []
    for item in items:
        needs = [name for mark in item.iter_markers("needs") for name in mark.args]
        if absent := missing(needs):
            left_out[_sources(absent)] += 1
            deselected.append(item)
        else:
            kept.append(item)
    config.hook.pytest_deselected(items=deselected)
    items[:] = kept
    config.stash[_LEFT_OUT] = dict(left_out)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Has a process of several tell the one that writes the summary."""
    output: dict[str, object] | None = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_OUTPUT_KEY] = session.config.stash.get(_LEFT_OUT, {})


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Hears from such a process; all of them leave out the same."""
    output = getattr(node, "workeroutput", {})
    if _OUTPUT_KEY in output:
        node.config.stash[_LEFT_OUT] = output[_OUTPUT_KEY]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Says what was left out."""
    for sources, number in sorted(config.stash.get(_LEFT_OUT, {}).items()):
        terminalreporter.write_line(
            f"{number} tests were left out: they need {sources} (`make programs` fetches programs)"
        )


def _sources(names: Iterable[str]) -> str:
    return "; ".join(REQUIREMENTS[name].source for name in names)


@pytest.fixture(scope="session")
def parity_table(pytestconfig: pytest.Config) -> Iterator[ParityTable]:
    """Rows that the parity tests fill; written at the end if a file was named."""
    table = ParityTable()
    yield table
    path: Path | None = pytestconfig.getoption("--parity-table")
    if path is not None:
        table.write(path)
