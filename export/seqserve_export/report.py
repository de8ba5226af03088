"""The closing report of an export, as tables."""

from rich.console import Console
from rich.table import Table

from seqserve_export.exporter import Report


def print_report(report: Report, console: Console) -> None:
    """Prints what was written and how it was verified."""
    manifest = report.manifest
    console.print(
        f"[bold]{manifest.name}[/bold] version {manifest.version}: "
        f"{', '.join(manifest.tasks)}, family {manifest.family}, {manifest.dtype}, "
        f"{report.num_parameters:,} parameters"
    )
    console.print(_make_file_table(report))
    console.print(_make_check_table(report))
    if not manifest.is_batch_invariant:
        console.print(
            "[yellow]warning:[/yellow] on this machine, the last bits of a result depend on its "
            "batch; results stay within the tolerances above"
        )
    for note in report.notes:
        console.print(f"[yellow]note:[/yellow] {note}")
    console.print(f"written to {report.folder} in {report.seconds:.1f} s", soft_wrap=True)


def _make_file_table(report: Report) -> Table:
    table = Table("file", "size")
    table.columns[1].justify = "right"
    for name, record in report.manifest.files.items():
        table.add_row(name, f"{record.size_bytes:,} bytes")
    return table


def _make_check_table(report: Report) -> Table:
    table = Table("check", "cases", "largest difference", "tolerance")
    for column in table.columns[1:]:
        column.justify = "right"
    for record in report.manifest.verification:
        table.add_row(
            record.check,
            f"{record.count:,}",
            f"{record.max_abs_difference:.2g}",
            f"{record.tolerance:.2g}",
        )
    return table
