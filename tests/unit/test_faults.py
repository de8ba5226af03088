"""FAULTS.md: every fault is there once, and every test it names exists and is run."""

import ast
import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
NUM_FAULTS = 67
BEYOND = "## Faults beyond these"
"""The heading of the second table, whose numbers go on."""
_TEST = re.compile(r"`(?P<module>[a-z_/]+\.py)::(?P<name>test_\w+)(?:\[[^`]*\])?`")
_LEFT_OUT = {"skip", "skipif", "xfail"}


def read_rows() -> tuple[list[tuple[int, str]], list[tuple[int, str]]]:
    """Numbers and the cells behind them, of both tables."""
    tables = (TESTS / "FAULTS.md").read_text(encoding="utf-8").split(f"\n{BEYOND}\n")
    first, second = (
        [
            (int(number), cells)
            for number, cells in re.findall(r"^\| (\d+) \|(.*)\|$", table, re.MULTILINE)
        ]
        for table in tables
    )
    return first, second


def marks_of(node: ast.AST) -> set[str]:
    """Names of the marks in an expression, as in ``pytest.mark.skip(...)``."""
    return {
        one.attr
        for one in ast.walk(node)
        if isinstance(one, ast.Attribute)
        and isinstance(one.value, ast.Attribute)
        and one.value.attr == "mark"
    }


def find_tests(module: Path) -> dict[str, set[str]]:
    """The tests of a module by their names, with their marks."""
    found: dict[str, set[str]] = {}
    marks_of_all: set[str] = set()
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = {mark for one in node.decorator_list for mark in marks_of(one)}
        elif isinstance(node, ast.Assign) and "pytestmark" in ast.unparse(node.targets[0]):
            marks_of_all |= marks_of(node.value)
    return {name: marks | marks_of_all for name, marks in found.items()}


LISTED, FOUND = read_rows()
ROWS = LISTED + FOUND


def test_every_fault_is_listed_once() -> None:
    """In the order of their numbers, those that nobody had listed behind the others."""
    assert len(LISTED) == NUM_FAULTS
    assert FOUND
    assert [number for number, _ in ROWS] == list(range(1, len(ROWS) + 1))


@pytest.mark.parametrize(("number", "cells"), ROWS)
def test_tests_of_a_fault_exist(number: int, cells: str) -> None:
    """At least one, none of which is skipped or expected to fail."""
    named = _TEST.findall(cells)
    assert named, f"fault {number} names no test"
    for module, name in named:
        path = TESTS / module
        assert path.is_file(), f"fault {number}: there is no {module}"
        tests = find_tests(path)
        assert name in tests, f"fault {number}: {module} has no {name}"
        assert not tests[name] & _LEFT_OUT, f"fault {number}: {module}::{name} is left out"


def test_cells_say_what_is_done_and_proven() -> None:
    """Each row has a text before its tests and one behind them."""
    for number, cells in ROWS:
        done, tests, proven = (cell.strip() for cell in cells.split("|"))
        assert done, number
        assert tests, number
        assert proven, number
