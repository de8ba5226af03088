"""The example that searches the standard library."""

import pytest
from click.testing import CliRunner

from fake_server import FakeServer
from seqserve.examples import semantic_search
from seqserve.examples.semantic_search import Documentation, read_documentation


def test_documentation_is_read_without_importing() -> None:
    """First paragraphs of public modules, classes and functions; no text twice."""
    found = {one.name: one.text for one in read_documentation()}
    assert found["textwrap.indent"].startswith("Adds 'prefix' to the beginning of selected lines")
    assert len(found) > 3000
    assert len(set(found.values())) == len(found)
    assert not any(part.startswith("_") for name in found for part in name.split("."))


def test_nearest_come_first(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the similarity of their vectors, several batches of texts in a stream."""
    documents = [Documentation(f"module.f{count}", "x" * count) for count in range(1, 41)]
    monkeypatch.setattr(semantic_search, "read_documentation", lambda: documents)
    arguments = ["yyyyyyy", "--target", server.target, "--model", "m", "--top", "1"]
    result = CliRunner().invoke(semantic_search.main, arguments)
    assert result.exit_code == 0, result.output
    assert "40 texts in" in result.output
    assert "module.f40 " in result.output
    assert "module.f39 " not in result.output
    assert [len(one.inputs) for one in server.requests] == [32, 8, 1]
