"""The command ``embed``, against a server with canned answers."""

import json
from pathlib import Path

import numpy as np
import pytest

from command_line import run
from fake_server import FakeServer
from seqserve.v1 import encoding_pb2, model_pb2


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
    requests = [one for one in server.requests if isinstance(one, encoding_pb2.EmbedRequest)]
    sent = [one.normalize if one.HasField("normalize") else None for one in requests]
    assert sent == [None, True, False]
    assert not any(one.return_tokens for one in requests)


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


@pytest.fixture
def sparse_server(server: FakeServer) -> FakeServer:
    """A server with a second model that embeds, sparsely."""
    settings = model_pb2.EmbeddingSettings(
        embedding_size=9, sparse=model_pb2.SparseSettings(activation="relu")
    )
    server.models.append(model_pb2.Model(name="splade", version="1", embedding=settings))
    server.sparse = encoding_pb2.SparseVector(
        indices=[2, 5, 8], values=[0.5, 1.8181818, 0.5], tokens=["a", "cat", "##s"]
    )
    return server


def test_weights_are_printed_with_their_tokens(sparse_server: FakeServer) -> None:
    """The largest first, a text a line; or an object with --json."""
    result = run(sparse_server, "embed", "--model", "splade", "--max-active-dims", "3", "abc", "d")
    assert result.stdout == "cat:1.818 a:0.5 ##s:0.5\n" * 2
    request = sparse_server.requests[-1]
    assert (request.max_active_dims, request.return_tokens) == (3, True)
    record = json.loads(run(sparse_server, "embed", "--model", "splade", "--json", "abc").stdout)
    assert record == {
        "input": "abc",
        "indices": [2, 5, 8],
        "values": [0.5, pytest.approx(1.8181818), 0.5],
        "tokens": ["a", "cat", "##s"],
        "token_count": 3,
        "truncated_token_count": 0,
    }


def test_similarities_of_weights_are_a_table(sparse_server: FakeServer) -> None:
    """The same cosines as of dense embeddings."""
    output = run(sparse_server, "embed", "--model", "splade", "--similarity", "abc", "d").stdout
    assert output.count("1.000") == 4


def test_weights_are_not_written_as_arrays(sparse_server: FakeServer, tmp_path: Path) -> None:
    """A .npy file is for dense embeddings; the message says what to use."""
    path = tmp_path / "vectors.npy"
    result = run(sparse_server, "embed", "--model", "splade", "abc", "--output", str(path))
    assert result.exit_code == 2
    assert "those of the model are sparse; use --json" in result.stderr
    assert not path.exists()
