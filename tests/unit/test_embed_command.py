"""The command ``embed``, against a server with canned answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from command_line import run
from fake_server import FakeServer


def test_embed_prints_or_writes_vectors(server: FakeServer, tmp_path: Path) -> None:
    """An array a line, an object with --json, or a .npy file."""
    assert run(server, "embed", "abc").stdout == "[3.0, 1.0]\n"
    record = json.loads(run(server, "embed", "--json", "abc").stdout)
    assert record == {
        "input": "abc",
        "values": [3.0, 1.0],
        "token_count": 3,
        "truncated_token_count": 0,
    }
    path = tmp_path / "vectors.npy"
    assert run(server, "embed", "abc", "d", "--output", str(path)).exit_code == 0
    assert np.load(path).tolist() == [[3.0, 1.0], [1.0, 1.0]]


def test_similarities_are_a_table(server: FakeServer) -> None:
    """With ones on the diagonal."""
    output = run(server, "embed", "--similarity", "abc", "d").stdout
    assert output.count("1.000") == 2
    assert output.count("0.894") == 2


def test_normalize_is_sent_if_given(server: FakeServer) -> None:
    """Without the flag the model decides."""
    for flags in ([], ["--normalize"], ["--no-normalize"]):
        assert run(server, "embed", "a", *flags).exit_code == 0
    sent = [one.normalize if one.HasField("normalize") else None for one in server.requests]
    assert sent == [None, True, False]


def test_vectors_are_written_under_the_given_name(server: FakeServer, tmp_path: Path) -> None:
    """The name is taken as it is, and the message names the file that is there."""
    path = tmp_path / "vectors"
    result = run(server, "embed", "abc", "--output", str(path))
    assert result.stdout == f"wrote 1 vectors to {path}\n"
    assert [one.name for one in tmp_path.iterdir()] == ["vectors"]
    assert np.load(path).tolist() == [[3.0, 1.0]]


def test_vectors_that_cannot_be_written_are_one_line(server: FakeServer, tmp_path: Path) -> None:
    """Exit code 1 and the reason, no traceback."""
    path = tmp_path / "absent" / "vectors.npy"
    result = run(server, "embed", "abc", "--output", str(path))
    assert result.exit_code == 1
    assert result.stderr == f"error: {path} cannot be written: No such file or directory\n"
    assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize("text", ["[/x]", "[red]a", ":smile:"])
def test_texts_in_the_table_are_not_markup(server: FakeServer, text: str) -> None:
    """What looks like markup is printed as it is."""
    result = run(server, "embed", "--similarity", text, "b")
    assert result.exit_code == 0
    assert f"1 {text} " in result.stdout
