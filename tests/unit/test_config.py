"""The settings: where they come from, which wins, and what is refused."""

from pathlib import Path
from typing import Any

import pytest

from seqserve.config import ServerConfig
from seqserve.config_source import read_config
from seqserve.errors import ConfigurationError
from seqserve.transport import channel_options


def write(folder: Path, text: str) -> Path:
    """A configuration file."""
    path = folder / "seqserve.toml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(
    flags: dict[str, Any] | None = None,
    file: Path | None = None,
    environment: dict[str, str] | None = None,
) -> str:
    """The message with which settings are refused."""
    with pytest.raises(ConfigurationError) as caught:
        read_config(flags or {}, file, environment or {})
    return str(caught.value)


def test_nothing_set_gives_the_defaults() -> None:
    """Without flags, environment and file the settings are the documented defaults."""
    assert read_config({}, None, {}) == ServerConfig()


def test_flag_wins_over_environment_and_file(tmp_path: Path) -> None:
    """The first that is set wins: flag, then environment, then file."""
    file = write(tmp_path, "port = 1\nhealth_port = 2\nmetrics_port = 3\n")
    environment = {"SEQSERVE_PORT": "11", "SEQSERVE_HEALTH_PORT": "12"}
    config = read_config({"port": 21}, file, environment)
    assert (config.port, config.health_port, config.metrics_port) == (21, 12, 3)


def test_values_are_read_by_their_type(tmp_path: Path) -> None:
    """Texts of the environment become numbers, paths and booleans."""
    environment = {
        "SEQSERVE_MODELS": "store",
        "SEQSERVE_REFLECTION": "false",
        "SEQSERVE_DRAIN_SECONDS": "1.5",
    }
    config = read_config({}, write(tmp_path, 'log_level = "debug"'), environment)
    found = (config.models, config.reflection, config.drain_seconds, config.log_level)
    assert found == (Path("store"), False, 1.5, "debug")


def test_process_environment_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an environment of its own the call reads that of the process."""
    monkeypatch.setenv("SEQSERVE_PORT", "4711")
    assert read_config({}).port == 4711


def test_unknown_settings_name_their_origin(tmp_path: Path) -> None:
    """A misspelt flag, variable or key is refused under the name it was given by."""
    file = write(tmp_path, "max_batch = 3")
    assert refusal({"max_batch": 3}).startswith("--max-batch is no setting; there are: ")
    assert refusal(file=file).startswith(f"max_batch in {file} is no setting; ")
    assert refusal(environment={"SEQSERVE_MAX_BATCH": "3"}).startswith(
        "SEQSERVE_MAX_BATCH is no setting; there are: allow_model_control, "
    )


def test_variables_of_others_are_left_alone() -> None:
    """The client's variables, the file's name and other prefixes are not settings."""
    environment = {
        "SEQSERVE_TARGET": "server:1",
        "SEQSERVE_CONFIG": "seqserve.toml",
        "OTHER_PORT": "1",
    }
    assert read_config({}, None, environment) == ServerConfig()


def test_client_variables_are_no_keys_of_the_file(tmp_path: Path) -> None:
    """What the client reads from its environment stays unknown in the server's file."""
    assert "target in " in refusal(file=write(tmp_path, 'target = "server:1"'))


def test_token_is_read_and_not_shown() -> None:
    """By whatever prints the settings, or says what is wrong with them."""
    config = read_config({}, None, {"SEQSERVE_TOKEN": "secret"})
    assert config.token is not None
    assert config.token.get_secret_value() == "secret"
    assert "secret" not in repr(config)
    assert "secret" not in refusal({"port": -1}, None, {"SEQSERVE_TOKEN": "secret"})


def test_half_of_what_tls_needs_is_refused() -> None:
    """It would be ignored, and the server would serve in the clear."""
    both = {"tls_certificate": "a.crt", "tls_key": "a.key"}
    for name, value in both.items():
        assert "tls_certificate and tls_key must be set together" in refusal({name: value})
    assert "tls_client_ca has an effect with tls_certificate and tls_key only" in refusal(
        {"tls_client_ca": "ca.crt"}
    )
    assert read_config(both | {"tls_client_ca": "ca.crt"}, None, {}).tls_key == Path("a.key")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", 65536),
        ("port", -1),
        ("max_batch_size", 0),
        ("max_batch_size", 1025),
        ("max_batch_tokens", 0),
        ("max_num_beams", 0),
        ("max_request_seconds", 0),
        ("max_request_seconds", "inf"),
        ("max_request_seconds", "nan"),
        ("max_request_seconds", 86401),
        ("max_message_bytes", 2**31),
        ("max_tokens_per_request", 0),
        ("drain_seconds", -1),
        ("drain_seconds", "inf"),
        ("handshake_seconds", 0),
        ("handshake_seconds", 86401),
        ("max_connection_age_seconds", "inf"),
        ("keepalive_seconds", 0),
        ("keepalive_timeout_seconds", "inf"),
        ("min_ping_seconds", -1),
        ("max_connection_streams", 0),
        ("max_connection_streams", 2**31),
        ("threads", 1025),
        ("threads", "many"),
        ("log_level", "loud"),
        ("reflection", "perhaps"),
    ],
)
def test_values_out_of_range_name_their_origin(name: str, value: object, tmp_path: Path) -> None:
    """A bad value is refused with the flag, variable or key that set it."""
    flag = f"--{name.replace('_', '-')}"
    variable = f"SEQSERVE_{name.upper()}"
    file = write(tmp_path, f"{name} = {value if isinstance(value, int) else repr(value)}")
    assert refusal({name: value}).startswith(f"{flag}: Input should be ")
    assert refusal(environment={variable: str(value)}).startswith(f"{variable}: Input should be ")
    assert refusal(file=file).startswith(f"{name} in {file}: Input should be ")


def test_largest_values_are_what_grpc_takes() -> None:
    """Both ends of a range belong to it, and a server can be made with them."""
    largest = {
        "max_request_seconds": "86400",
        "max_message_bytes": 2**31 - 1,
        "handshake_seconds": 86400,
        "max_connection_age_seconds": 86400,
        "keepalive_seconds": 86400,
        "keepalive_timeout_seconds": 86400,
        "min_ping_seconds": 86400,
        "max_connection_streams": 2**31 - 1,
    }
    config = read_config(largest, None, {})
    options = dict(channel_options(config))
    assert all(-(2**31) <= value < 2**31 for value in options.values())


def test_overridden_value_is_not_checked() -> None:
    """Only the value that wins counts; a bad one below it does no harm."""
    assert read_config({"port": 1}, None, {"SEQSERVE_PORT": "none"}).port == 1


def test_all_bad_values_are_told_at_once() -> None:
    """One message lists every problem."""
    message = refusal({"port": -1}, None, {"SEQSERVE_THREADS": "-2"})
    assert "--port: " in message
    assert "SEQSERVE_THREADS: " in message


def test_more_beams_than_rows_are_refused() -> None:
    """A beam search that no batch can hold is an error of the configuration."""
    message = refusal({"max_num_beams": 9, "max_batch_size": 8})
    assert "max_num_beams (9) exceeds max_batch_size (8)" in message
    assert read_config({"max_num_beams": 8, "max_batch_size": 8}, None, {}).max_num_beams == 8


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    """An absent file, one that is not TOML and one that is not UTF-8 are refused by name."""
    absent = tmp_path / "absent.toml"
    assert refusal(file=absent) == f"{absent} cannot be read: No such file or directory"
    broken = write(tmp_path, "port = = 1")
    assert refusal(file=broken).startswith(f"{broken} is not TOML: ")
    broken.write_bytes(b"host = '\xff'")
    assert refusal(file=broken).startswith(f"{broken} is not TOML: ")


def test_message_that_could_never_be_taken_is_refused() -> None:
    """Whoever sends one would be told to try again later, for ever."""
    message = refusal({"max_message_bytes": 2048, "max_outstanding_bytes": 2047})
    assert "max_message_bytes (2048) exceeds max_outstanding_bytes (2047)" in message
    assert read_config({"max_message_bytes": 2**31 - 1}, None, {}).max_outstanding_bytes == 0
