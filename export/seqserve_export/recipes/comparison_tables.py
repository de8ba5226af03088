"""The tables of a comparison, as Markdown."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from seqserve_export.recipes.comparison_findings import (
    Variants,
    errors_by_length,
    mean_error,
    name_spans,
)
from seqserve_export.variants.catalogue import CATALOGUE

_Column = tuple[str, Callable[[Mapping[str, Any]], str]]
"""A title, and what makes the text of a variant."""


def format_errors(variants: Variants, names: Sequence[str]) -> str:
    """Wrong tokens by the length of the source."""
    spans = name_spans(variants, names)
    rows = [
        [
            CATALOGUE[name].title,
            str(len(variants[name]["runs"])),
            *(f"{rate:.1%}" for rate in errors_by_length(variants[name])),
            f"{mean_error(variants[name]):.1%}",
        ]
        for name in names
    ]
    return format_table(["", "seeds", *spans, "all"], rows)


def format_costs(variants: Variants) -> str:
    """What training and serving take."""
    columns: list[_Column] = [
        ("", lambda one: one["title"]),
        ("parameters", lambda one: f"{one['runs'][0]['num_parameters']:,}"),
        ("training, processor s", _format_training),
        ("training step, ms", lambda one: f"{1000 * one['step_seconds']:.0f}"),
        ("served tokens/s", lambda one: f"{one['tokens_per_second']:,.0f}"),
        ("one source, p50 ms", lambda one: f"{1000 * one['latency_p50_seconds']:.1f}"),
        ("p95 ms", lambda one: f"{1000 * one['latency_p95_seconds']:.1f}"),
        ("weights, KB", lambda one: f"{one['weight_bytes'] / 1000:.0f}"),
        ("cache, bytes a token", lambda one: f"{one['cache_bytes_per_token']:,}"),
    ]
    return _format_columns(variants.values(), columns)


def _format_training(variant: Mapping[str, Any]) -> str:
    """Of the first run that was not interrupted."""
    known = [run["processor_seconds"] for run in variant["runs"] if run["processor_seconds"]]
    return f"{known[0]:.0f}" if known else ""


def format_checks(variants: Variants) -> str:
    """What was compared with torch, and what there is to show."""
    columns: list[_Column] = [
        ("", lambda one: one["title"]),
        ("answers as in torch", lambda one: f"{one['num_equal_answers']} of {one['num_answers']}"),
        ("torch against ONNX", lambda one: f"{one['largest_difference']:.0e}"),
        ("same alone and in a batch", lambda one: "yes" if one["is_batch_invariant"] else "no"),
        ("`Attend`", lambda one: ", ".join(one["attention_kinds"]) or "nothing to show"),
        ("difference", lambda one: _format_difference(one["attention_difference"])),
    ]
    return _format_columns(variants.values(), columns)


def _format_difference(difference: float | None) -> str:
    return "" if difference is None else f"{difference:.0e}"


def _format_columns(
    variants: Iterable[Mapping[str, Any]],
    columns: Sequence[_Column],
) -> str:
    rows = [[read(variant) for _, read in columns] for variant in variants]
    return format_table([title for title, _ in columns], rows)


def format_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
