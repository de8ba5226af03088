"""The closing report of an export, as tables."""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from rich.console import Console
from rich.table import Table

from seqserve.manifest import LayerForm, LayerRecord, QualityRecord
from seqserve_export.exporter import Plan, Report

_NUM_LAYERS = 10
"""Of the least exact layers; the manifest lists all."""


def print_report(report: Report, console: Console) -> None:
    """Prints what was written and how it was verified."""
    plan, manifest = report.plan, report.manifest
    _print_heading(plan, console)
    console.print(_make_file_table(report))
    console.print(_make_check_table(report))
    if manifest.layers:
        console.print(_make_layer_table(manifest.layers))
    console.print(_make_summary(report))
    _print_fp32_layers(report, console)
    if not manifest.is_batch_invariant:
        console.print(
            "[yellow]warning:[/yellow] on this machine, the last bits of a result depend on its "
            "batch; results stay within the tolerances above"
        )
    _print_notes(plan, console)
    console.print(f"written to {report.folder} in {report.seconds:.1f} s", soft_wrap=True)


def _print_fp32_layers(report: Report, console: Console) -> None:
    dtype, quality = report.plan.dtype, report.manifest.quality
    if not report.fp32_layers:
        return
    num_fp32 = len(report.fp32_layers)
    if quality is not None and num_fp32 == quality.num_layers:
        console.print(
            f"[yellow]warning:[/yellow] all {num_fp32} linear layers stay in fp32, since {dtype} "
            "does not reach the quality gate: this model is hardly smaller or faster than in fp32; "
            "calibrate on texts of its domain (--calibration), or serve it as fp32"
        )
        return
    gated = ""
    if quality is not None and quality.num_fp32_layers:
        gated = f" ({quality.num_fp32_layers} of them for the quality gate)"
    console.print(
        f"[yellow]note:[/yellow] {num_fp32} layers stay in fp32{gated}, since {dtype} would be too "
        f"far off: {', '.join(report.fp32_layers)}"
    )


def print_plan(plan: Plan, console: Console) -> None:
    """Prints what an export would write."""
    _print_heading(plan, console)
    _print_notes(plan, console)
    console.print(
        f"would be exported as {plan.dtype} to {plan.folder}; nothing was written", soft_wrap=True
    )


def _print_heading(plan: Plan, console: Console) -> None:
    console.print(
        f"[bold]{plan.name}[/bold] version {plan.version}: {plan.task}, family {plan.family}, "
        f"{plan.num_parameters:,} parameters"
    )


def _print_notes(plan: Plan, console: Console) -> None:
    for note in plan.notes:
        console.print(f"[yellow]note:[/yellow] {note}")


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


def _make_layer_table(layers: Sequence[LayerRecord]) -> Table:
    """The layers that lose most."""
    worst = sorted(layers, key=lambda layer: layer.relative_error, reverse=True)[:_NUM_LAYERS]
    title = "least exact layers" if len(worst) < len(layers) else "layers"
    table = Table(f"{title} in int8", "form", "error")
    table.columns[2].justify = "right"
    for layer in worst:
        table.add_row(layer.name, layer.form, f"{layer.relative_error:.2%}")
    return table


def _count_forms(layers: Sequence[LayerRecord]) -> str:
    counts = Counter(layer.form for layer in layers)
    return ", ".join(f"{counts[form]} {form}" for form in get_args(LayerForm))


def _make_summary(report: Report) -> Table:
    plan, manifest = report.plan, report.manifest
    graphs = [name for name in manifest.files if name.endswith(".onnx")]
    written_bytes = sum(record.size_bytes for record in manifest.files.values())
    table = Table("", "", show_header=False)
    table.columns[1].justify = "right"
    table.add_row("graphs", ", ".join(graphs))
    table.add_row("parameters", f"{plan.num_parameters:,}")
    table.add_row("number format", plan.dtype)
    if report.calibrated_on is not None:
        table.add_row("calibrated on", report.calibrated_on)
    if manifest.layers:
        table.add_row("linear layers", _count_forms(manifest.layers))
    if manifest.quality is not None:
        _add_quality(table, manifest.quality)
    table.add_row("checkpoint", f"{plan.source_bytes / 1e6:,.1f} MB")
    table.add_row("served model", f"{written_bytes / 1e6:,.1f} MB")
    table.add_row("largest difference", f"{_find_worst(report):.2g} of its tolerance")
    if manifest.greedy_agreement is not None:
        table.add_row("greedy agreement", f"{manifest.greedy_agreement:.1%}")
    table.add_row("seconds", f"{report.seconds:.1f}")
    return table


def _add_quality(table: Table, quality: QualityRecord) -> None:
    """What the format costs, on what, and against which threshold."""
    table.add_row("quality judged on", quality.texts)
    share = f"{quality.value:.4f}, at least {quality.threshold:g} (of {quality.count:,})"
    table.add_row(quality.measure, share)
    if quality.mean is not None:
        table.add_row("mean cosine", f"{quality.mean:.4f}")
    if quality.num_near_ties:
        table.add_row("near ties decided otherwise", f"{quality.num_near_ties:,}")
    table.add_row(
        "layers in fp32 for quality", f"{quality.num_fp32_layers} of {quality.num_layers}"
    )


def _find_worst(report: Report) -> float:
    """The largest difference, as a share of what it might be."""
    return max(
        record.max_abs_difference / record.tolerance
        for record in report.manifest.verification
        if record.tolerance
    )
