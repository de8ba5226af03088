"""The command ``models``, against a server with canned answers."""

import json

from click.testing import CliRunner

from command_line import run
from fake_server import FakeServer
from seqserve.__main__ import main


def test_models_describes_the_one_that_is_named(server: FakeServer) -> None:
    """The options of the call are not ignored."""
    records = run(server, "models", "--json", "--model", "fake", "--version", "1").stdout
    assert [json.loads(line)["name"] for line in records.splitlines()] == ["fake"]
    (request,) = server.requests
    assert (request.model_name, request.model_version) == ("fake", "1")


def test_models_lists_tasks_and_limits(server: FakeServer) -> None:
    """As a table, or as JSON."""
    output = run(server, "models").stdout
    assert "fake" in output
    assert "vectors" in output
    records = [json.loads(line) for line in run(server, "models", "--json").stdout.splitlines()]
    assert [record["tasks"] for record in records] == [["generate"], ["embed"]]
    assert [record["embedding"] for record in records] == [
        None,
        {
            "embedding_size": 2,
            "pooling": "mean",
            "normalize": True,
            "prompts": {},
            "default_prompt_name": "",
            "token_embedding_size": 0,
            "sparse": None,
        },
    ]


def test_models_table_has_a_row_for_each(server: FakeServer) -> None:
    """What a model does and how far it goes."""
    result = CliRunner().invoke(
        main, ["models"], env={"SEQSERVE_TARGET": server.target, "COLUMNS": "200"}
    )
    cells = [
        [cell.strip() for cell in line.strip("│").split("│")]
        for line in result.stdout.splitlines()
        if line.startswith("│")
    ]
    assert cells == [
        ["fake", "1", "generate", "transformer", "fp32", "9", "up to 9 new tokens, 1 beam(s)"],
        ["vectors", "2", "embed", "", "", "0", "2 numbers, pooling mean"],
    ]
