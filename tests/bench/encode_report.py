"""Ratios of the encode benchmark with their targets."""

import statistics
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from bench.decode_report import Target
from bench.encode_models import BERT_BASE, FORMATS, MINILM

REFERENCE = "sentence_transformers"
"""Whose vectors the others are compared with."""
LEAST_COSINE = 0.99
"""Of every text; what is less close does not count as the same quality."""
_SUFFIXES = {MINILM: "", BERT_BASE: "_bert_base"}
_BOUNDS = {
    "bulk_vs_sentence_transformers": Target(2.0),
    "bulk_vs_best_onnx": Target(1.3),
    "grpc_vs_raw": Target(0.85),
    "single_p50_vs_sentence_transformers": Target(0.5, is_upper=True),
}
TARGETS = {
    f"{name}{suffix}": target for suffix in _SUFFIXES.values() for name, target in _BOUNDS.items()
}
_ONNX_PEERS = ("fastembed", "onnxruntime")


def make_ratios(parts: Mapping[str, Any]) -> dict[str, float]:
    """Every ratio that the measured models allow: of rates, ours over the peer's; of latencies."""
    ratios: dict[str, float] = {}
    for name, part in parts.items():
        suffix = _SUFFIXES[name]
        ratios |= {f"{key}{suffix}": value for key, value in _make_ratios(part).items()}
    return ratios


def _make_ratios(part: Any) -> dict[str, float]:
    rates = {name: _rate(part, seconds) for name, seconds in part["bulk_seconds"].items()}
    single = {name: statistics.median(values) for name, values in part["single_seconds"].items()}
    clients = {
        name: statistics.median(one["texts_per_second"] for one in rounds)
        for name, rounds in part["clients"].items()
    }
    close = [name for name, found in part["cosines"].items() if found["least"] >= LEAST_COSINE]
    ours = max((name for name in close if name.startswith("seqserve")), key=rates.__getitem__)
    best_onnx = max((name for name in close if name.startswith(_ONNX_PEERS)), key=rates.__getitem__)
    best_fp32 = max((f"{name}_fp32" for name in _ONNX_PEERS), key=rates.__getitem__)
    return {
        "bulk_vs_sentence_transformers": rates[ours] / rates[REFERENCE],
        "bulk_vs_best_onnx": rates[ours] / rates[best_onnx],
        "grpc_vs_raw": min(rates[f"seqserve_{one}"] / rates[f"raw_{one}"] for one in FORMATS),
        "single_p50_vs_sentence_transformers": single[ours] / single[REFERENCE],
        "clients_vs_sentence_transformers": clients[ours] / clients[REFERENCE],
        "bulk_fp32_vs_sentence_transformers": rates["seqserve_fp32"] / rates[REFERENCE],
        "bulk_fp32_vs_best_onnx_fp32": rates["seqserve_fp32"] / rates[best_fp32],
        "single_p50_fp32_vs_sentence_transformers": single["seqserve_fp32"] / single[REFERENCE],
    }


def _rate(part: Any, seconds: list[float]) -> float:
    """Texts a second in the median round."""
    rate: float = part["num_texts"] / part["num_rounds"] / statistics.median(seconds)
    return rate


def print_report(parts: Mapping[str, Any], ratios: Mapping[str, float], console: Console) -> None:
    """Prints what was measured, and the ratios."""
    for name, part in parts.items():
        table = Table("side", "bulk, texts/s", "single, ms", "64 clients, texts/s", "least cosine")
        table.title = f"{name}, {part['num_texts']} texts"
        for side, seconds in part["bulk_seconds"].items():
            single = part["single_seconds"].get(side)
            rounds = part["clients"].get(side)
            table.add_row(
                side,
                f"{_rate(part, seconds):.1f}",
                "" if single is None else f"{statistics.median(single) * 1000:.2f}",
                ""
                if rounds is None
                else f"{statistics.median(one['texts_per_second'] for one in rounds):.1f}",
                f"{part['cosines'][side]['least']:.4f}",
            )
        console.print(table)
        alone, beside, (bulk,) = (
            part["fairness_seconds"][key] for key in ("alone", "beside", "bulk")
        )
        console.print(
            f"one sentence alone: {statistics.median(alone) * 1000:.1f} ms; while a request with "
            f"{part['num_texts']} texts was worked on for {bulk:.1f} s: p50 "
            f"{statistics.median(beside) * 1000:.1f} ms, longest {max(beside) * 1000:.1f} ms"
        )
    table = Table("ratio", "measured", "target", "")
    for name, ratio in ratios.items():
        target = TARGETS.get(name)
        verdict = "" if target is None else "met" if target.is_met(ratio) else "missed"
        table.add_row(name, f"{ratio:.2f}", str(target or ""), verdict)
    console.print(table)
