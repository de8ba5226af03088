"""The command line, against a server with canned answers."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest
from click.testing import CliRunner, Result

from fake_server import FakeServer, Refusal
from seqserve.__main__ import main
from seqserve.config import ServerConfig
from seqserve.v1 import priority_pb2


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """A running fake server."""
    with FakeServer() as running:
        yield running


def run(server: FakeServer, *arguments: str, stdin: str | bytes | None = None) -> Result:
    """Runs a command; the address comes from the environment."""
    environment = {"SEQSERVE_TARGET": server.target, "SEQSERVE_TOKEN": "t"}
    return CliRunner().invoke(main, arguments, input=stdin, env=environment)


def test_generate_prints_one_hypothesis_a_line(server: FakeServer) -> None:
    """Texts alone, so that they can be piped; the token comes from the environment."""
    result = run(server, "generate", "--model", "fake", "ab", "c", "--num-beams", "2")
    assert (result.exit_code, result.stdout) == (0, "AB\nab\nC\nc\n")
    assert server.requests[0].options.num_beams == 2
    assert server.metadata[0]["authorization"] == "Bearer t"


def test_priority_time_and_name_are_passed_on(server: FakeServer) -> None:
    """The class of the request, the limit of its inputs, and who calls."""
    arguments = ["--priority", "low", "--caller", "nightly"]
    assert run(server, "generate", "a", "--max-time", "0.25", *arguments).exit_code == 0
    assert run(server, "generate", "a", "--stream", *arguments).exit_code == 0
    assert run(server, "embed", "a", *arguments).exit_code == 0
    assert server.requests[0].options.max_time.ToMilliseconds() == 250
    assert [request.priority for request in server.requests] == [priority_pb2.PRIORITY_LOW] * 3
    assert {call["seqserve-caller"] for call in server.metadata} == {"nightly"}


def test_scores_come_before_texts(server: FakeServer) -> None:
    """Score, tab, text; nothing where there is none."""
    assert run(server, "generate", "--scores", "a").stdout == "-0.5000\tA\na\n"
    assert server.requests[0].options.return_scores


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


def test_inputs_are_read_from_standard_input(server: FakeServer) -> None:
    """One a line, with or without an end of the last one."""
    assert run(server, "generate", stdin="ab\nc\n").stdout == "AB\nab\nC\nc\n"
    assert run(server, "generate", stdin="ab\nc").stdout == "AB\nab\nC\nc\n"
    assert run(server, "generate", "-", stdin="d\n").stdout == "D\nd\n"


def test_no_input_at_all_is_wrong_usage(server: FakeServer) -> None:
    """Exit code 2, as for every wrong usage."""
    result = run(server, "generate", stdin="")
    assert result.exit_code == 2
    assert "give a text as an argument or lines on standard input" in result.stderr


def test_json_has_every_field(server: FakeServer) -> None:
    """One object a line."""
    record = json.loads(run(server, "generate", "--json", "ab").stdout)
    assert record["input"] == "ab"
    assert record["hypotheses"][0]["token_ids"] == [5, 2]
    assert record["timing"]["decode_seconds"] == 0.003


def test_stream_prints_pieces(server: FakeServer) -> None:
    """Joined as they come."""
    assert run(server, "generate", "--stream", "abc").stdout == "ABC\n"


@pytest.mark.parametrize(
    "flags",
    [
        ["generate"],
        ["generate", "--json"],
        ["generate", "--stream"],
        ["generate", "--stream", "--json"],
        ["embed"],
        ["embed", "--json"],
        ["embed", "--similarity"],
        ["embed", "--output"],
    ],
    ids=" ".join,
)
def test_truncation_is_noted(server: FakeServer, tmp_path: Path, flags: list[str]) -> None:
    """On standard error, so that the output stays clean; the note says which input was cut."""
    path = [str(tmp_path / "vectors.npy")] if "--output" in flags else []
    result = run(server, *flags, *path, "--truncate", "short", "long")
    assert result.exit_code == 0
    assert result.stderr == "note: 3 tokens of input 2 were cut\n"


@pytest.mark.parametrize(
    ("arguments", "ignored", "winner"),
    [
        (["generate", "--stream", "--scores"], "--scores", "--stream"),
        (
            ["generate", "--stream", "--num-return-sequences", "2", "--num-beams", "2"],
            *("--num-return-sequences", "--stream"),
        ),
        (["embed", "--similarity", "--json"], "--json", "--similarity"),
        (["embed", "--similarity", "--output", "x.npy"], "--output", "--similarity"),
        (["embed", "--output", "x.npy", "--json"], "--json", "--output"),
    ],
)
def test_options_that_would_be_ignored_are_wrong_usage(
    server: FakeServer, arguments: list[str], ignored: str, winner: str
) -> None:
    """Exit code 2 before any call."""
    result = run(server, *arguments, "a")
    assert result.exit_code == 2
    assert f"{ignored} has no effect with {winner}; leave one of them out" in result.stderr
    assert not server.requests


def test_lines_end_with_line_feeds_alone(server: FakeServer) -> None:
    """What else ends lines elsewhere belongs to the text, but for one carriage return at the end.

    Answers would not line up with the lines of the input.
    """
    lines = ["a\u2028b", "c\fd", "e\x1cf", "g\rh", "i\x85j"]
    stdin = "\r\n".join(lines).encode()
    assert run(server, "tokenize", stdin=stdin).exit_code == 0
    assert list(server.requests[0].texts) == lines


def test_input_that_is_not_utf8_is_wrong_usage(server: FakeServer) -> None:
    """Exit code 2, and where it stands."""
    result = run(server, "tokenize", stdin=b"a\xffb\n")
    assert result.exit_code == 2
    assert "standard input is not UTF-8" in result.stderr
    assert "position 1" in result.stderr


def test_models_describes_the_one_that_is_named(server: FakeServer) -> None:
    """The options of the call are not ignored."""
    records = run(server, "models", "--json", "--model", "fake", "--version", "1").stdout
    assert [json.loads(line)["name"] for line in records.splitlines()] == ["fake"]
    (request,) = server.requests
    assert (request.model_name, request.model_version) == ("fake", "1")


def test_refusal_is_one_line_and_exit_1(server: FakeServer) -> None:
    """No traceback."""
    server.refusals = [Refusal(grpc.StatusCode.INVALID_ARGUMENT, "`x` is wrong")]
    result = run(server, "generate", "a")
    assert (result.exit_code, result.stderr) == (1, "error: INVALID_ARGUMENT: `x` is wrong\n")


def test_unreachable_server_is_named_with_a_hint() -> None:
    """The reader learns what to do."""
    arguments = ["models", "--target", "127.0.0.1:1", "--timeout", "0.5"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1


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


def test_models_lists_tasks_and_limits(server: FakeServer) -> None:
    """As a table, or as JSON."""
    output = run(server, "models").stdout
    assert "fake" in output
    assert "vectors" in output
    records = [json.loads(line) for line in run(server, "models", "--json").stdout.splitlines()]
    assert [record["tasks"] for record in records] == [["generate"], ["embed"]]
    assert [record["embedding"] for record in records] == [
        None,
        {"embedding_size": 2, "pooling": "mean", "normalize": True},
    ]


def test_tokenize_prints_tokens_with_ids(server: FakeServer) -> None:
    """Separated by spaces."""
    assert run(server, "tokenize", "ab").stdout == "a:97 b:98\n"


def test_serve_has_a_flag_for_every_setting() -> None:
    """With its default in the help."""
    output = CliRunner().invoke(main, ["serve", "--help"]).stdout
    for name, field in ServerConfig.model_fields.items():
        assert f"--{name.replace('_', '-')}" in output
        assert str(field.default) in output


def test_unknown_setting_in_the_file_is_one_line(tmp_path: Path) -> None:
    """It names the key and the file."""
    path = tmp_path / "seqserve.toml"
    path.write_text("prot = 1\n", encoding="utf-8")
    result = CliRunner().invoke(main, ["serve"], env={"SEQSERVE_CONFIG": str(path)})
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: prot in {path} is no setting; there are: ")
    assert result.stderr.count("\n") == 1


def test_unavailable_comes_with_a_hint(server: FakeServer) -> None:
    """The address, and how to start a server; no traceback."""
    server.refusals = [Refusal(grpc.StatusCode.UNAVAILABLE, "gone", pushback_milliseconds=-1)]
    result = run(server, "models")
    assert result.exit_code == 1
    assert result.stderr == (
        f"error: UNAVAILABLE: gone (is a server at {server.target}? "
        "start one with: seqserve serve)\n"
    )
    assert isinstance(result.exception, SystemExit)


def test_token_is_not_sent_in_clear_to_another_machine() -> None:
    """One line and exit code 2, wherever the token comes from; with --tls the call is made."""
    arguments = ["models", "--target", "server.example:1", "--timeout", "0.1"]
    environment = {"SEQSERVE_TOKEN": "secret"}
    result = CliRunner().invoke(main, arguments, env=environment)
    assert (result.exit_code, result.stderr) == (
        2,
        "error: the token would be sent to server.example:1 in clear; set `tls`, or leave `token` "
        "out (the options are --tls, --ca, --caller, and --token or SEQSERVE_TOKEN)\n",
    )
    assert isinstance(result.exception, SystemExit)
    assert CliRunner().invoke(main, [*arguments, "--tls"], env=environment).exit_code == 1


def test_root_certificates_without_tls_are_wrong(tmp_path: Path) -> None:
    """They would be ignored."""
    path = tmp_path / "ca.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n", encoding="ascii")
    result = CliRunner().invoke(main, ["models", "--ca", str(path)])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: `root_certificates` has an effect with TLS only; ")
    assert result.stderr.count("\n") == 1


def test_flags_win_over_variables(server: FakeServer) -> None:
    """For the address and for the token."""
    arguments = ["models", "--target", server.target, "--token", "flag"]
    environment = {"SEQSERVE_TARGET": "127.0.0.1:1", "SEQSERVE_TOKEN": "variable"}
    assert CliRunner().invoke(main, arguments, env=environment).exit_code == 0
    assert server.metadata[0]["authorization"] == "Bearer flag"


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


def test_normalize_is_sent_if_given(server: FakeServer) -> None:
    """Without the flag the model decides."""
    for flags in ([], ["--normalize"], ["--no-normalize"]):
        assert run(server, "embed", "a", *flags).exit_code == 0
    sent = [one.normalize if one.HasField("normalize") else None for one in server.requests]
    assert sent == [None, True, False]


@pytest.mark.parametrize("command", ["generate", "embed", "tokenize"])
def test_blank_input_is_wrong_usage(server: FakeServer, command: str) -> None:
    """Exit code 2 before any call, for every command that reads inputs, with the line's number."""
    for arguments in ([command], [command, "-"]):
        for stdin, number in (("\n", 1), ("a\n \nb\n", 2), ("a\n\n", 2), ("a\r\n\r\n", 2)):
            result = run(server, *arguments, stdin=stdin)
            assert result.exit_code == 2
            assert (
                f"line {number} of standard input is blank, but every line is an input; remove it"
            ) in " ".join(result.stderr.split())
    assert not server.requests


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


@pytest.mark.parametrize("arguments", [["generate", "--stream", "a"], ["embed", "a"], ["models"]])
def test_every_command_ends_a_refused_call_alike(server: FakeServer, arguments: list[str]) -> None:
    """One line on standard error, nothing on standard output, exit code 1."""
    server.refusals = [Refusal(grpc.StatusCode.UNAUTHENTICATED, "no token")]
    result = run(server, *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == "error: UNAUTHENTICATED: no token\n"
    assert isinstance(result.exception, SystemExit)


def test_text_outside_ascii_stays_readable(server: FakeServer) -> None:
    """JSON is not escaped."""
    assert '"input": "größe"' in run(server, "generate", "--json", "größe").stdout
    assert '"text": "ö"' in run(server, "tokenize", "--json", "ö").stdout


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


def test_cut_source_of_a_score_is_noted(server: FakeServer) -> None:
    """On standard error, as for every input."""
    result = run(server, "score", "--truncate", "long", "a")
    assert (result.stdout, result.stderr) == (
        "-1.0000\t-1.0000\ta\n",
        "note: 3 tokens of input 1 were cut\n",
    )
