"""The command ``generate``, against a server with canned answers."""

import json

import pytest

from command_line import run
from fake_server import FakeServer


def test_generate_prints_one_hypothesis_a_line(server: FakeServer) -> None:
    """Texts alone, so that they can be piped; the token comes from the environment."""
    result = run(server, "generate", "--model", "fake", "ab", "c", "--num-beams", "2")
    assert (result.exit_code, result.stdout) == (0, "AB\nab\nC\nc\n")
    assert server.requests[0].options.num_beams == 2
    assert server.metadata[0]["authorization"] == "Bearer t"


def test_scores_come_before_texts(server: FakeServer) -> None:
    """Score, tab, text; nothing where there is none."""
    assert run(server, "generate", "--scores", "a").stdout == "-0.5000\tA\na\n"
    assert server.requests[0].options.return_scores


def test_json_has_every_field(server: FakeServer) -> None:
    """One object a line."""
    record = json.loads(run(server, "generate", "--json", "ab").stdout)
    assert record["input"] == "ab"
    assert record["hypotheses"][0]["token_ids"] == [5, 2]
    assert record["timing"]["decode_seconds"] == 0.003


def test_stream_prints_pieces(server: FakeServer) -> None:
    """Joined as they come."""
    assert run(server, "generate", "--stream", "abc").stdout == "ABC\n"


def test_decoding_options_are_sent_if_given(server: FakeServer) -> None:
    """Zero and --no-... are given; what is absent stays unset."""
    run(server, "generate", "a")
    run(
        server,
        *("generate", "a", "--model", "m", "--version", "2", "--truncate"),
        *("--max-new-tokens", "5", "--num-return-sequences", "2"),
        *("--length-penalty", "0", "--no-early-stopping"),
        *("--stop-sequence", ".", "--stop-sequence", " end", "--no-include-stop-sequence"),
    )
    bare, full = server.requests
    assert not bare.options.ListFields()
    assert {field.name: value for field, value in full.options.ListFields()} == {
        "max_new_tokens": 5,
        "num_return_sequences": 2,
        "length_penalty": 0.0,
        "early_stopping": False,
        "stop_sequences": [".", " end"],
        "include_stop_sequence": False,
    }
    assert (full.model_name, full.model_version, full.truncate) == ("m", "2", True)


def test_each_input_streams_on_its_own_line(server: FakeServer) -> None:
    """In the order of the inputs."""
    assert run(server, "generate", "--stream", "ab", "c").stdout == "AB\nC\n"
    assert [request.input.text for request in server.requests] == ["ab", "c"]


def test_json_stream_is_one_piece_a_line(server: FakeServer) -> None:
    """Text and ids of each piece."""
    output = run(server, "generate", "--stream", "--json", "ab").stdout
    assert [json.loads(line) for line in output.splitlines()] == [
        {"text": "A", "token_ids": [0]},
        {"text": "B", "token_ids": [1]},
    ]


def test_sampling_options_are_sent_and_the_seed_is_told(server: FakeServer) -> None:
    """The server's choice on standard error, so that the same can be drawn again."""
    flags = ["--do-sample", "--temperature", "0.5", "--top-k", "4", "--top-p", "0.75"]
    for more in ([], ["--stream"]):
        result = run(server, "generate", "a", *flags, *more)
        assert result.stderr == "note: input 1 was drawn with --seed 99\n"
        assert not run(server, "generate", "a", *flags, *more, "--seed", "7").stderr
    assert not run(server, "generate", "a", "--no-do-sample").stderr
    sent = [
        {one.name: value for one, value in each.options.ListFields()} for each in server.requests
    ]
    values = {"do_sample": True, "temperature": 0.5, "top_k": 4, "top_p": 0.75}
    assert sent == [
        values,
        values | {"seed": 7},
        values,
        values | {"seed": 7},
        {"do_sample": False},
    ]


def test_lists_and_prefixes_are_sent(server: FakeServer) -> None:
    """An option that may be given several times, and a text for every input."""
    run(
        server,
        *("generate", "a", "b", "--target-prefix", "x y", "--return-alternatives"),
        *("--num-return-sequences", "2", "--min-alternative-probability", "0.25"),
        *("--suppressed-token-id", "5", "--suppressed-token-id", "6"),
        *("--suppressed-sequence", "bad word", "--suppressed-sequence", "worse"),
        *("--json", "--top-log-probability-count", "3"),
    )
    run(server, "generate", "--stream", "a", "--target-prefix", "x")
    request, stream = server.requests
    assert [one.target_prefix_text for one in request.inputs] == ["x y", "x y"]
    options = request.options
    assert list(options.suppressed_token_ids) == [5, 6]
    assert [one.text for one in options.suppressed_sequences] == ["bad word", "worse"]
    assert (options.return_alternatives, options.min_alternative_probability) == (True, 0.25)
    assert options.top_log_probability_count == 3
    assert stream.input.target_prefix_text == "x"
    assert not stream.options.ListFields()


@pytest.mark.parametrize("flags", [[], ["--json", "--stream"]])
def test_top_tokens_that_nothing_prints_are_wrong_usage(
    server: FakeServer, flags: list[str]
) -> None:
    """Exit code 2 before any call."""
    result = run(server, "generate", "a", "--top-log-probability-count", "3", *flags)
    assert result.exit_code == 2
    assert "is printed with --json and without --stream only" in " ".join(result.stderr.split())
    assert not server.requests


def test_alignments_follow_the_text(server: FakeServer) -> None:
    """In Pharaoh format, by tokens, words or characters; with --json as numbers."""
    for unit in ("tokens", "words"):
        result = run(server, "generate", "a bc d", "--alignments", unit, "--scores")
        assert result.stdout == "-0.5000\tA BC D\t2-0 2-1 2-2\na bc d\n"
    result = run(server, "generate", "a bc d", "--alignments", "characters", "--scores")
    assert result.stdout.startswith("-0.5000\tA BC D\t3-0 3-1 3-2 3-3\n")
    record = json.loads(run(server, "generate", "a b", "--json", "--alignments", "words").stdout)
    first, second = record["hypotheses"]
    assert first["alignment"]["source_indices"] == [1, 1, -1]
    assert first["alignment"]["weights"] == [[0.0, 0.75, 0.25]] * 3
    assert second["alignment"] is None
    assert [request.return_alignments for request in server.requests] == [True] * 4
    run(server, "generate", "a b")
    assert not server.requests[-1].return_alignments
    assert run(server, "generate", "a", "--stream", "--alignments", "words").exit_code == 2
