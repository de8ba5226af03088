"""Where settings come from: flags, environment variables and a file.

A setting ``max_batch_size`` is the flag ``--max-batch-size``, the variable
``SEQSERVE_MAX_BATCH_SIZE`` and the key ``max_batch_size`` of the TOML file; the first that is set
wins, in this order. An unknown one is an error, wherever it stands.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pydantic

from seqserve.config import ServerConfig
from seqserve.errors import ConfigurationError

PREFIX = "SEQSERVE_"
CLIENT_VARIABLES = frozenset({"SEQSERVE_TARGET"})
"""Variables with our prefix that the client's commands alone read; the server leaves them be."""
CONFIG_VARIABLE = "SEQSERVE_CONFIG"


def read_config(
    flags: Mapping[str, Any],
    file: Path | None = None,
    environment: Mapping[str, str] | None = None,
) -> ServerConfig:
    """Reads the settings from flags, environment and file.

    Args:
        flags: Settings given on the command line, by name.
        file: A TOML file, if given.
        environment: The environment; the process's own by default.

    Raises:
        ConfigurationError: A setting is unknown or out of range; the message says where it stands.
    """
    environment = os.environ if environment is None else environment
    settings: dict[str, Any] = {}
    origins: dict[str, str] = {}
    for name, value, origin in [
        *_file_settings(file),
        *_environment_settings(environment),
        *((name, value, f"--{name.replace('_', '-')}") for name, value in flags.items()),
    ]:
        if name not in ServerConfig.model_fields:
            known = ", ".join(sorted(ServerConfig.model_fields))
            raise ConfigurationError(f"{origin} is no setting; there are: {known}")
        settings[name], origins[name] = value, origin
    try:
        return ServerConfig.model_validate(settings)
    except pydantic.ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            name = str(problem["loc"][0]) if problem["loc"] else ""
            problems.append(f"{origins.get(name, 'settings')}: {problem['msg']}")
        raise ConfigurationError("; ".join(problems)) from error


def _file_settings(file: Path | None) -> list[tuple[str, Any, str]]:
    if file is None:
        return []
    try:
        settings = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigurationError(f"{file} is not TOML: {error}") from error
    return [(name, value, f"{name} in {file}") for name, value in settings.items()]


def _environment_settings(environment: Mapping[str, str]) -> list[tuple[str, Any, str]]:
    ignored = CLIENT_VARIABLES | {CONFIG_VARIABLE}
    return [
        (name.removeprefix(PREFIX).lower(), value, name)
        for name, value in sorted(environment.items())
        if name.startswith(PREFIX) and name not in ignored
    ]
