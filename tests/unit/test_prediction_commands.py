"""The commands for models with heads, against a server with canned answers."""

import json

import pytest

from command_line import run
from fake_server import FakeServer
from seqserve.v1 import encoding_pb2, model_pb2, priority_pb2


def test_classify_prints_score_label_and_text(server: FakeServer) -> None:
    """One label a line, or an object for each input."""
    result = run(server, "classify", "--model", "m", "ab", "--top-k", "2", "--pair", "cd")
    assert (result.exit_code, result.stdout) == (0, "0.7500\ta\tab\n0.2500\tb\tab\n")
    (request,) = server.requests
    assert (request.model_name, request.top_k, request.inputs[0].text_pair) == ("m", 2, "cd")
    record = json.loads(run(server, "classify", "--json", stdin="ab\n").stdout)
    assert (record["input"], record["labels"][0]["label"]) == ("ab", "a")
    assert not server.requests[1].inputs[0].HasField("text_pair")


def test_tag_prints_place_score_label_and_part(server: FakeServer) -> None:
    """One part a line, as it stands in the input; joined tokens by default."""
    result = run(server, "tag", "Ab", "c")
    assert (result.exit_code, result.stdout) == (
        0,
        "1\t0\t1\t0.5000\tLOC\tA\n2\t0\t1\t0.5000\tLOC\tc\n",
    )
    assert server.requests[0].aggregation_strategy == encoding_pb2.AGGREGATION_STRATEGY_SIMPLE
    assert not server.requests[0].HasField("ignore_labels")
    run(server, "tag", "a", "--ignore-label", "X", "--stride", "0")
    assert list(server.requests[1].ignore_labels.labels) == ["X"]
    assert server.requests[1].HasField("stride")
    run(server, "tag", "a", "--all-labels")
    assert server.requests[2].HasField("ignore_labels")
    both = run(server, "tag", "a", "--all-labels", "--ignore-label", "X")
    assert both.exit_code == 2
    assert "--ignore-label has no effect with --all-labels; leave one of them out" in both.stderr
    record = json.loads(run(server, "tag", "--json", "ab").stdout)
    assert record["entities"][0]["end_byte_offset"] == 1


def test_rerank_prints_score_and_document(server: FakeServer) -> None:
    """Best first; documents are arguments or lines."""
    result = run(server, "rerank", "q", "a", "b", "--top-n", "2", "--activation", "identity")
    assert (result.exit_code, result.stdout) == (0, "0.5000\tb\n0.0000\ta\n")
    (request,) = server.requests
    assert (request.query, list(request.documents), request.top_n) == ("q", ["a", "b"], 2)
    assert request.activation == model_pb2.RERANKING_ACTIVATION_IDENTITY
    lines = run(server, "rerank", "q", "--json", stdin="a\nb\n").stdout.splitlines()
    assert [json.loads(line)["document"] for line in lines] == ["b", "a"]


def test_fill_mask_prints_tokens_and_sequences(server: FakeServer) -> None:
    """Numbers of input and mask, score, token, text."""
    result = run(server, "fill-mask", "a [MASK]", "--top-k", "1", "--vocabulary-target", "cat")
    assert (result.exit_code, result.stdout) == (0, "1\t1\t0.5000\tcat\ta cat\n")
    (request,) = server.requests
    assert (request.top_k, list(request.targets), request.return_sequences) == (1, ["cat"], True)
    record = json.loads(run(server, "fill-mask", "--json", "a").stdout)
    assert record["masks"][0][0]["text"] == "cat"


@pytest.mark.parametrize("command", [["classify"], ["tag"], ["rerank", "q"], ["fill-mask"]])
def test_truncation_is_passed_on_and_noted(server: FakeServer, command: list[str]) -> None:
    """On standard error, with the number of what was cut."""
    arguments = ["--truncate", "--truncation-direction", "left", "--priority", "low"]
    result = run(server, *command, *arguments, "short", "long")
    assert result.exit_code == 0
    assert result.stderr == "note: 3 tokens of input 2 were cut\n"
    (request,) = server.requests
    assert request.truncation_direction == encoding_pb2.TRUNCATION_DIRECTION_LEFT
    assert (request.truncate, request.priority) == (True, priority_pb2.PRIORITY_LOW)


def test_embed_passes_options_on(server: FakeServer) -> None:
    """Those that are given, an empty prompt included."""
    arguments = ["--prompt-name", "", "--dimensions", "2", "--stride", "0"]
    assert run(server, "embed", "a", *arguments).exit_code == 0
    assert run(server, "embed", "a").exit_code == 0
    first, second = (one for one in server.requests if isinstance(one, encoding_pb2.EmbedRequest))
    assert (first.HasField("prompt_name"), first.dimensions) == (True, 2)
    assert first.HasField("stride")
    assert not second.HasField("prompt_name")
    assert not second.HasField("stride")
