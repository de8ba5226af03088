"""The command line, against a server with canned answers: what all commands do alike."""

from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner

from command_line import run
from fake_server import FakeServer, Refusal
from seqserve.__main__ import main
from seqserve.config import ServerConfig
from seqserve.v1 import model_pb2, priority_pb2


def test_priority_time_and_name_are_passed_on(server: FakeServer) -> None:
    """The class of the request, the limit of its inputs, and who calls."""
    arguments = ["--priority", "low", "--caller", "nightly"]
    assert run(server, "generate", "a", "--max-time", "0.25", *arguments).exit_code == 0
    assert run(server, "generate", "a", "--stream", *arguments).exit_code == 0
    assert run(server, "embed", "a", *arguments).exit_code == 0
    assert run(server, "score", "a", "b", *arguments).exit_code == 0
    assert server.requests[0].options.max_time.ToMilliseconds() == 250
    # `embed` asks first whether the model is sparse.
    calls = [one for one in server.requests if not isinstance(one, model_pb2.ListModelsRequest)]
    assert [request.priority for request in calls] == [priority_pb2.PRIORITY_LOW] * 4
    assert {call["seqserve-caller"] for call in server.metadata} == {"nightly"}


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
        "out; where a mesh or a tunnel encrypts, set `allows_token_in_clear` (the options are "
        "--tls, --ca, --cert, --key, --caller, --token-in-clear, and --token or SEQSERVE_TOKEN)\n",
    )
    assert isinstance(result.exception, SystemExit)
    assert CliRunner().invoke(main, [*arguments, "--tls"], env=environment).exit_code == 1


def test_token_in_clear_is_sent_with_a_warning() -> None:
    """If --token-in-clear says so: one line on standard error before that of the call."""
    arguments = ["models", "--target", "server.example:1", "--timeout", "0.1", "--token-in-clear"]
    result = CliRunner().invoke(main, arguments, env={"SEQSERVE_TOKEN": "secret"})
    warning, error = result.stderr.splitlines()
    assert warning == (
        "warning: the token is sent to server.example:1 in clear; unless something else encrypts "
        "it, whoever is on the way can use it"
    )
    assert error.startswith("error: ")


@pytest.mark.parametrize(
    ("flag", "name"),
    [("--ca", "root_certificates"), ("--cert", "certificate"), ("--key", "private_key")],
)
def test_certificates_without_tls_are_wrong(tmp_path: Path, flag: str, name: str) -> None:
    """They would be ignored."""
    path = tmp_path / "file.pem"
    path.write_text("-----BEGIN CERTIFICATE-----\n", encoding="ascii")
    result = CliRunner().invoke(main, ["models", flag, str(path)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: `{name}` has an effect with TLS only; ")
    assert result.stderr.count("\n") == 1


def test_flags_win_over_variables(server: FakeServer) -> None:
    """For the address and for the token."""
    arguments = ["models", "--target", server.target, "--token", "flag"]
    environment = {"SEQSERVE_TARGET": "127.0.0.1:1", "SEQSERVE_TOKEN": "variable"}
    assert CliRunner().invoke(main, arguments, env=environment).exit_code == 0
    assert server.metadata[0]["authorization"] == "Bearer flag"


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
