"""The rows of the README's tables, made of the result files of benchmarks.

Each is what was measured, then its figures, rounded as they stand there.
"""

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "bench" / "results"
MIB = 2**20
_ENCODERS = {
    "sentence_transformers": "sentence-transformers 6.2, torch, no server",
    "fastembed_fp32": "fastembed 0.9.1, fp32, no server",
    "fastembed_int8": "fastembed 0.9.1, int8 with dynamic scales, no server",
    "onnxruntime_fp32": "onnxruntime by hand, sorted, fp32",
    "onnxruntime_int8": "onnxruntime by hand, sorted, int8 with dynamic scales",
    "seqserve_fp32": "seqserve fp32, over gRPC",
    "seqserve_int8": "seqserve int8, over gRPC",
}
_EXPORTS = {
    "opus-mt fp32": "OPUS-MT fp32",
    "opus-mt int8": "OPUS-MT int8",
    "bart-base fp32": "BART-base fp32",
    "t5-base fp32": "T5-base fp32",
    "nllb-200-600m fp32": "NLLB-200-600M fp32",
}


def read(name: str) -> Any:
    """A result file."""
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _milliseconds(seconds: float) -> str:
    """Whole ones, as tables have them."""
    return f"{1000 * seconds:,.0f} ms"


def decoding() -> Iterator[tuple[str, ...]]:
    """Of the table on CTranslate2."""
    content = read("decode.json")
    parts, ratios = content["parts"], content["ratios"]
    for name, what in (("greedy", "greedy"), ("beam4", "4 beams")):
        rates = parts["offline"][name]["tokens_per_second"]
        ours, theirs = (statistics.median(rates[side]) for side in ("seqserve", "ctranslate2"))
        cells = f"{ours:,.0f} tokens/s", f"{theirs:,.0f} tokens/s", f"{ours / theirs:.2f}"
        yield f"512 sentences at once, {what}", *cells
    online = parts["online"]
    ours, theirs = (online["max_trials"][side]["rate"] for side in ("seqserve", "peer"))
    cells = f"{ours:.0f} requests/s", f"{theirs:.0f} requests/s", f"{ours / theirs:.2f}"
    yield "highest rate of arrivals with p95 below 2 s", *cells
    highest = online["at_peer_maximum"]
    ours, theirs = (highest[side]["100%"]["p95_seconds"] for side in ("seqserve", "peer"))
    cells = _milliseconds(ours), _milliseconds(theirs), f"{ours / theirs:.2f}"
    yield "p95 at the highest rate of CTranslate2", *cells
    single = {name: statistics.median(one) for name, one in parts["single"]["seconds"].items()}
    ours, theirs = single["seqserve"], single["library"]
    cells = _milliseconds(ours), _milliseconds(theirs), f"{ours / theirs:.2f}"
    yield "one sentence of 24 tokens", *cells
    ours, theirs = single["seqserve_first_token"], single["library_first_token"]
    yield "first token", _milliseconds(ours), _milliseconds(theirs), f"{ours / theirs:.1f}"
    memory = online["memory"]
    ours, theirs = (memory[side]["resident_bytes"] / MIB for side in ("seqserve", "peer"))
    yield "resident after the load", f"{ours:.0f} MiB", f"{theirs:.0f} MiB", f"{ratios['rss']:.2f}"
    rates = parts["efficiency"]["tokens_per_second"]
    ours, theirs = (statistics.median(rates[side]) for side in ("seqserve", "engine"))
    cells = f"{ours:,.0f} tokens/s", f"{theirs:,.0f} tokens/s", f"{ours / theirs:.2f}"
    yield "over gRPC against the engine alone", *cells
    rates = parts["transformers"]["tokens_per_second"]
    ours, theirs = (statistics.median(rates[side]) for side in ("seqserve", "transformers"))
    cells = f"{ours:,.0f} tokens/s", f"{theirs:,.0f} tokens/s", f"{ratios['vs_transformers']:.1f}"
    yield "256 sentences of 24 tokens, greedy", *cells


def encoding() -> Iterator[tuple[str, ...]]:
    """Of the table on embeddings."""
    parts = read("encode.json")["parts"]
    small, large = parts["all-minilm-l6-v2"], parts["bert-base"]
    rates = {
        (part["num_texts"], name): part["num_texts"] / part["num_rounds"] / statistics.median(times)
        for part in (small, large)
        for name, times in part["bulk_seconds"].items()
    }
    for name, what in _ENCODERS.items():
        clients = ""
        if name in small["clients"]:
            every = [one["texts_per_second"] for one in small["clients"][name]]
            clients = f"{statistics.median(every):.0f}"
        yield (
            what,
            f"{rates[small['num_texts'], name]:.0f}",
            f"{1000 * statistics.median(small['single_seconds'][name]):.1f} ms",
            clients,
            f"{small['cosines'][name]['least']:.3f}".replace("1.000", "1"),
            f"{rates[large['num_texts'], name]:.0f}",
            f"{1000 * statistics.median(large['single_seconds'][name]):.1f} ms",
        )
    raw = [
        "; ".join(f"{rates[part['num_texts'], f'raw_{kind}']:.0f}" for kind in ("int8", "fp32"))
        for part in (small, large)
    ]
    yield "our graph alone, int8; fp32", raw[0], "", "", "", raw[1], ""


def serving() -> Iterator[tuple[str, ...]]:
    """Of the table on the shipped models."""
    content = read("serve.json")
    seconds = {name: statistics.median(times) for name, times in content["seconds"].items()}
    ratios, single = content["ratios"], content["single_word_seconds"]
    yield (
        "`g2p-en`, 512 words, greedy",
        f"{512 / seconds['generate_seqserve']:,.0f} words/s",
        f"{512 / seconds['generate_torch']:,.0f} words/s",
        f"{ratios['generate_vs_torch']:.2f}",
    )
    yield (
        "`g2p-en`, one word alone",
        f"{1000 * single['p50']:.1f} ms",
        f"{1000 * single['torch_p50']:.1f} ms",
        f"{ratios['single_word_vs_torch']:.2f}",
    )
    yield (
        "`all-minilm-l6-v2`, 256 texts of 5 to 60 words",
        f"{256 / seconds['embed_seqserve']:.0f} texts/s",
        f"{256 / seconds['embed_sentence_transformers']:.0f} texts/s",
        f"{ratios['embed_vs_sentence_transformers']:.2f}",
    )
    resident = content["server_resident_bytes"] / MIB
    yield "server with both models, after the rounds above", f"{resident:.0f} MiB resident"


def exporting() -> Iterator[tuple[str, ...]]:
    """Of the table on exports."""
    exports = read("export.json")["exports"]
    assert set(exports) == set(_EXPORTS)
    for name, what in _EXPORTS.items():
        one = exports[name]
        before, peak = one["checkpoint_bytes"], one["peak_private_bytes"]
        yield (
            what,
            f"{before / 1e6:,.0f} MB",
            f"{one['served_bytes'] / 1e6:,.0f} MB",
            f"{peak / 1e6:,.0f} MB ({peak / before:.1f} x)",
            f"{one['seconds']:.0f} s",
            f"{max(one['checks'].values()):.0e}",
        )


def pronouncing() -> Iterator[tuple[str, ...]]:
    """On the errors of the shipped model."""
    measured = read("number_formats.json")["measured"]
    for dtype, what in (
        ("fp32", "`g2p-en` on 6,000 unseen words"),
        ("int8", "the same in int8, keys and values as bytes"),
    ):
        greedy, beams = (
            (100 * one["phoneme_error_rate"], 100 * one["word_error_rate"])
            for one in measured
            if one["dtype"] == dtype
        )
        yield (
            what,
            f"phoneme error rate {greedy[0]:.1f} %, word error rate {greedy[1]:.1f} % "
            f"(4 beams: {beams[0]:.1f} %, {beams[1]:.1f} %)",
        )
