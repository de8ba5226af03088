"""``seqserve-export SOURCE STORE``: makes a served model of a checkpoint."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from seqserve_export.calibration_text import read_texts
from seqserve_export.errors import ExportError
from seqserve_export.exporter import export_model, plan_export
from seqserve_export.hub import find_source
from seqserve_export.phase import OnPhase, Phase
from seqserve_export.pooling import POOLING_MODES, SPARSE_POOLINGS, PoolingChoice
from seqserve_export.precision import DTYPES, Dtype
from seqserve_export.report import print_plan, print_report


@click.command(name="seqserve-export")
@click.argument("source")
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--name", help="Name of the model; by default that of the checkpoint.")
@click.option("--version", default="1", show_default=True, help="Version, a number from 1 up.")
@click.option(
    "--dtype",
    type=click.Choice(DTYPES),
    default="fp32",
    show_default=True,
    help="Number format to serve in; int8 is for CPUs, fp16 for GPUs.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Texts in UTF-8, one a line, to choose the number ranges of int8 on; best some hundred "
    "from the domain that will be served. Of 50 and more, a fifth judges an encoder instead. By "
    "default sentences the tokenizer was made for.",
)
@click.option("--force", is_flag=True, help="Replace the version if it exists.")
@click.option(
    "--allow-pickle",
    is_flag=True,
    help="Read pickled weights where there is no model.safetensors; code in them is not run.",
)
@click.option(
    "--pooling",
    type=click.Choice([*POOLING_MODES, *SPARSE_POOLINGS]),
    help="How token states become one embedding, for an encoder whose folder does not say it; "
    "by default their mean. splade_max and splade_sum make sparse embeddings of the logits of a "
    "masked language model.",
)
@click.option(
    "--explain/--no-explain",
    "is_explained",
    default=True,
    show_default=True,
    help="Whether the server can tell what attends to what. Takes a small file, and nothing of the "
    "server until somebody asks.",
)
@click.option("--revision", help="Of a hub id: branch, tag or commit.")
@click.option("--dry-run", is_flag=True, help="Read the checkpoint and say what would be done.")
def main(
    source: str,
    store: Path,
    name: str | None,
    version: str,
    dtype: Dtype,
    calibration: Path | None,
    force: bool,
    allow_pickle: bool,
    pooling: PoolingChoice | None,
    is_explained: bool,
    revision: str | None,
    dry_run: bool,
) -> None:
    """Exports the checkpoint SOURCE to STORE/<name>/<version>.

    SOURCE is a folder: a checkpoint of our own Transformer, a Hugging Face folder of a supported
    family, or a folder of sentence-transformers. It may also be an id of the Hugging Face hub,
    which is then downloaded. The model is compared with that of transformers, and the ONNX graphs
    with torch; nothing is written unless they agree.
    """
    console = Console()
    try:
        with _ending_on_signals():
            calibration_texts = _read_calibration(calibration, dtype)
            if dry_run:
                _, plan = plan_export(
                    find_source(source, revision, is_pickle_allowed=allow_pickle),
                    store,
                    name=name,
                    version=version,
                    dtype=dtype,
                    is_replacing=force,
                    is_pickle_allowed=allow_pickle,
                    pooling=pooling,
                )
                print_plan(plan, console)
                return
            with _showing_phases(console) as on_phase:
                report = export_model(
                    find_source(source, revision, is_pickle_allowed=allow_pickle),
                    store,
                    name=name,
                    version=version,
                    dtype=dtype,
                    calibration_texts=calibration_texts,
                    is_replacing=force,
                    is_pickle_allowed=allow_pickle,
                    pooling=pooling,
                    is_explained=is_explained,
                    on_phase=on_phase,
                )
    except ExportError as error:
        # One line, whatever a library put into its message.
        click.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)
    print_report(report, console)


def _read_calibration(path: Path | None, dtype: Dtype) -> tuple[str, ...]:
    if path is None:
        return ()
    if dtype == "fp32":
        raise ExportError(
            "--calibration has no effect on fp32, which needs no number ranges; add --dtype int8 "
            "or leave it out"
        )
    return read_texts(path)


@contextlib.contextmanager
def _showing_phases(console: Console) -> Iterator[OnPhase]:
    """Shows a bar over the phases, on a terminal."""
    phases = list(Phase)
    progress = Progress(
        SpinnerColumn(),
        BarColumn(bar_width=20),
        TextColumn("{task.description}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task("", total=len(phases))

        def on_phase(phase: Phase) -> None:
            progress.update(task, completed=phases.index(phase), description=phase.value)

        yield on_phase


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """Ends with the usual code on SIGTERM, too, after what was begun is removed."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    previous = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


if __name__ == "__main__":
    main()
