"""The command ``score``, against a server with canned answers."""

import json

from command_line import run
from fake_server import FakeServer


def test_score_prints_total_mean_and_target(server: FakeServer) -> None:
    """One target a line, or an object with its tokens."""
    result = run(server, "score", "--model", "fake", "ab", "cd", "e")
    assert (result.exit_code, result.stdout) == (0, "-2.0000\t-1.0000\tcd\n-1.0000\t-1.0000\te\n")
    (request,) = server.requests
    assert [target.text for target in request.inputs[0].targets] == ["cd", "e"]
    record = json.loads(run(server, "score", "--json", "ab", "c").stdout)
    assert (record["source"], record["target"], record["total_log_probability"]) == ("ab", "c", -1)
    assert record["tokens"] == [{"token_id": 99, "text": "c", "log_probability": -1.0}]
    assert run(server, "score", "ab").exit_code == 2


def test_cut_source_of_a_score_is_noted(server: FakeServer) -> None:
    """On standard error, as for every input."""
    result = run(server, "score", "--truncate", "long", "a")
    assert (result.stdout, result.stderr) == (
        "-1.0000\t-1.0000\ta\n",
        "note: 3 tokens of input 1 were cut\n",
    )
