"""The command ``seqserve``: starts a server, or calls one."""

import asyncio
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import structlog

import seqserve
from seqserve.access import open_access
from seqserve.certificate import open_certificate
from seqserve.commands import COMMANDS
from seqserve.config import ServerConfig
from seqserve.config_source import CONFIG_VARIABLE, read_config
from seqserve.errors import ConfigurationError, ModelFolderError
from seqserve.loading_health import LoadingHealth
from seqserve.logs import configure_logs
from seqserve.memory import keep_freed_memory
from seqserve.metrics import Metrics
from seqserve.preflight_process import Preflights
from seqserve.registry import Registry
from seqserve.server import SERVICES, Ports, Server
from seqserve.signals import STOPPED_EVENT, LoadingInterrupt, StopSignals
from seqserve.store import find_folders

_log = structlog.get_logger(__name__)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(seqserve.__version__, prog_name="seqserve")
def main() -> None:
    """Serves Transformer encoder-decoder and encoder-only models over gRPC, and calls them."""


def _config_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """One option for each setting of ``ServerConfig``, so that settings are defined once."""
    for name, field in reversed(ServerConfig.model_fields.items()):
        flag = name.replace("_", "-")
        is_switch = field.annotation is bool
        command = click.option(
            f"--{flag}/--no-{flag}" if is_switch else f"--{flag}",
            name,
            default=None,
            metavar=None if is_switch else "VALUE",
            help=f"{field.description} [default: {field.default}]",
        )(command)
    return command


@main.command()
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar=CONFIG_VARIABLE,
    help="TOML file of settings.",
)
@_config_options
def serve(config_file: Path | None, **flags: Any) -> None:
    """Serves the models of a store until SIGTERM or Ctrl-C.

    Every setting can also be given as an environment variable, SEQSERVE_PORT for --port, or in the
    file that --config names; flags win over variables, variables over the file.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    try:
        config = read_config(given, config_file)
        configure_logs(config)
        keep_freed_memory()
        exit_code = asyncio.run(_serve(config))
    except LoadingInterrupt as interrupt:
        _log.info(STOPPED_EVENT, signal=interrupt.name)
        exit_code = 0
    except (ConfigurationError, ModelFolderError) as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    sys.exit(exit_code)


async def _serve(config: ServerConfig) -> int:
    signals = StopSignals()
    signals.install()
    metrics = Metrics()
    # The server reads both again; what is wrong with them is told before models are opened.
    open_certificate(config)
    open_access(config)
    # Threads answer for the process before its event loop can, and until it does.
    async with LoadingHealth(config, SERVICES) as loading_health:
        with signals.interrupting():
            if config.preflight:
                Preflights(config).check_all(find_folders(config.models))
            registry = Registry.open(config, metrics)
        # What is here now stays: no collection need look through it again, while everybody waits.
        gc.collect()
        gc.freeze()
        config = config.model_copy(update={"health_port": loading_health.port})
        server = Server(registry, config, metrics, shares_health_port=True)
        ports = await server.start()
    click.echo(_ready_line(config, registry, ports))
    sys.stdout.flush()
    return await server.run(signals)


def _ready_line(config: ServerConfig, registry: Registry, ports: Ports) -> str:
    """One line for people and for programs that wait for it."""
    models = ",".join(model.label for model in registry.models)
    scheme = "http" if config.tls_certificate is None else "https"
    host = f"[{config.host}]" if ":" in config.host else config.host
    page = "" if ports.playground is None else f"playground={scheme}://{host}:{ports.playground}/ "
    return (
        f"seqserve ready: grpc={config.host}:{ports.grpc} health={config.host}:{ports.health} "
        f"metrics={config.host}:{ports.metrics} {page}models={models}"
    )


for _command in COMMANDS:
    main.add_command(_command)


if __name__ == "__main__":
    main(prog_name="seqserve")
