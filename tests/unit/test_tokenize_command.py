"""The command ``tokenize``, against a server with canned answers."""

import json

from command_line import run
from fake_server import FakeServer


def test_tokenize_prints_tokens_with_ids(server: FakeServer) -> None:
    """Separated by spaces."""
    assert run(server, "tokenize", "ab").stdout == "a:97 b:98\n"


def test_tokenize_prints_json(server: FakeServer) -> None:
    """Every field of each token, one text a line."""
    output = run(server, "tokenize", "--json", "ab", "c").stdout
    first, second = [json.loads(line) for line in output.splitlines()]
    assert first["tokens"][1] == {
        "token_id": 98,
        "text": "b",
        "start_offset": 1,
        "end_offset": 2,
        "is_special": False,
    }
    assert (second["input"], len(second["tokens"])) == ("c", 1)
