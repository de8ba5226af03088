"""The command's main group: versions, help, and how `serve` refuses to start."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import seqserve
from seqserve.__main__ import main
from seqserve.config import ServerConfig


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Gives the process of the tests its signal handlers back: `serve` keeps its own for good."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_version_is_the_packages() -> None:
    """One line with the name and the version."""
    result = CliRunner().invoke(main, ["--version"])
    assert (result.exit_code, result.stdout) == (0, f"seqserve, version {seqserve.__version__}\n")


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_names_every_command(flag: str) -> None:
    """The server's command and the client's."""
    result = CliRunner().invoke(main, [flag])
    assert result.exit_code == 0
    heads = {"classify", "tag", "rerank", "fill-mask"}
    others = {
        "serve",
        "bench",
        "attend",
        "generate",
        "score",
        "embed",
        "models",
        "load",
        "unload",
        "tokenize",
    }
    assert set(main.commands) == others | heads
    assert all(f"\n  {name} " in result.stdout for name in main.commands)


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_explains_itself(command: str) -> None:
    """Help starts with the usage and has a sentence about the command."""
    result = CliRunner().invoke(main, [command, "--help"])
    assert result.exit_code == 0
    usage, _, sentence = result.stdout.splitlines()[:3]
    assert usage.startswith(f"Usage: main {command} ")
    assert sentence.strip()


@pytest.mark.parametrize("name", ServerConfig.model_fields)
def test_serve_help_has_each_setting_with_its_default(name: str) -> None:
    """The flag is followed by the setting's own description and default."""
    field = ServerConfig.model_fields[name]
    text = " ".join(
        CliRunner().invoke(main, ["serve", "--help"], terminal_width=300).stdout.split()
    )
    flag = name.replace("_", "-")
    usage = f"--{flag} / --no-{flag}" if field.annotation is bool else f"--{flag} VALUE"
    assert f"{usage} {field.description} [default: {field.default}]" in text


def test_unknown_key_of_the_file_is_one_line_and_exit_2(tmp_path: Path) -> None:
    """SEQSERVE_CONFIG names the file as --config does; nothing is started."""
    path = tmp_path / "seqserve.toml"
    path.write_text("max_batchsize = 1\n", encoding="utf-8")
    from_variable = CliRunner().invoke(main, ["serve"], env={"SEQSERVE_CONFIG": str(path)})
    from_flag = CliRunner().invoke(main, ["serve", "--config", str(path)])
    for result in (from_variable, from_flag):
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr.startswith(f"error: max_batchsize in {path} is no setting")
        assert result.stderr.count("\n") == 1
        assert isinstance(result.exception, SystemExit)


@pytest.mark.parametrize(
    ("arguments", "environment", "origin"),
    [
        (["--port", "70000"], {}, "--port: "),
        ([], {"SEQSERVE_THREADS": "many"}, "SEQSERVE_THREADS: "),
        (["--config", "absent.toml"], {}, "absent.toml cannot be read: "),
        (["--models", "absent", "--port", "0"], {}, ""),
    ],
    ids=["flag", "variable", "file", "store"],
)
def test_wrong_settings_are_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    environment: dict[str, str],
    origin: str,
) -> None:
    """The line says where the setting stands; there is no traceback."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["serve", *arguments], env=environment)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: {origin}")
    assert result.stderr.count("\n") == 1
    assert isinstance(result.exception, SystemExit)


def test_unknown_command_is_wrong_usage() -> None:
    """Exit code 2, and the name."""
    result = CliRunner().invoke(main, ["sevre"])
    assert result.exit_code == 2
    assert "'sevre'" in result.stderr
