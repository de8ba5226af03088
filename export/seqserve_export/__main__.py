"""``seqserve-export SOURCE STORE``: makes a served model of a checkpoint."""

import sys
from pathlib import Path

import click
from rich.console import Console

from seqserve_export.errors import ExportError
from seqserve_export.exporter import export_model
from seqserve_export.pooling import POOLING_MODES, PoolingMode
from seqserve_export.report import print_report


@click.command(name="seqserve-export")
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model; by default that of the checkpoint.")
@click.option("--version", default="1", show_default=True, help="Version, a number from 1 up.")
@click.option("--force", is_flag=True, help="Replace the version if it exists.")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read pickled weights where there is no model.safetensors; code in them is not run.",
)
@click.option(
    "--pooling",
    type=click.Choice(POOLING_MODES),
    help="How token states become one embedding, for an encoder whose folder does not say it; "
    "by default their mean.",
)
def main(
    source: Path,
    store: Path,
    name: str | None,
    version: str,
    force: bool,
    allow_pickle: bool,
    pooling: PoolingMode | None,
) -> None:
    """Exports the checkpoint folder SOURCE to STORE/<name>/<version>.

    SOURCE is a checkpoint of our own Transformer, or a Hugging Face or sentence-transformers folder
    with an encoder. The model is compared with that of transformers, and the ONNX graphs with
    torch; nothing is written unless they agree.
    """
    console = Console()
    try:
        with console.status("") as status:
            report = export_model(
                source,
                store,
                name=name,
                version=version,
                is_replacing=force,
                is_pickle_allowed=allow_pickle,
                pooling=pooling,
                on_phase=lambda phase: status.update(f"{phase} ..."),
            )
    except ExportError as error:
        # One line, whatever a library put into its message.
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    print_report(report, console)


if __name__ == "__main__":
    main()
