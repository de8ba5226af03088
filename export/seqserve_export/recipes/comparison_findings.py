"""What the figures of a comparison say, and what they do not.

A difference counts if it is larger than what another seed makes; how much that is, is known of the
variants that were trained with several.
"""

from collections.abc import Iterator, Mapping, Sequence
from statistics import fmean
from typing import Any

from seqserve_export.variants.catalogue import CATALOGUE

Variants = Mapping[str, Mapping[str, Any]]
_BASE = "transformer"


def mean_error(variant: Mapping[str, Any]) -> float:
    """Wrong tokens as a share, the mean over seeds."""
    return fmean(run["token_error_rate"] for run in variant["runs"])


def errors_by_length(variant: Mapping[str, Any]) -> list[float]:
    """Wrong tokens as a share for each span of lengths, the mean over seeds."""
    spans = zip(*(run["by_length"] for run in variant["runs"]), strict=True)
    return [fmean(one["token_error_rate"] for one in span) for span in spans]


def ranges_by_length(variant: Mapping[str, Any]) -> list[tuple[float, float]]:
    """The least and the most wrong tokens of all seeds; empty if there was one."""
    if len(variant["runs"]) == 1:
        return []
    spans = zip(*(run["by_length"] for run in variant["runs"]), strict=True)
    rates = [[one["token_error_rate"] for one in span] for span in spans]
    return [(min(span), max(span)) for span in rates]


def measure_spread(variants: Variants) -> float | None:
    """The largest difference that a seed made; None if no variant was trained with several."""
    spreads = [
        max(rates) - min(rates)
        for variant in variants.values()
        if len(rates := [run["token_error_rate"] for run in variant["runs"]]) > 1
    ]
    return max(spreads, default=None)


def list_findings(variants: Variants) -> list[str]:
    """Sentences, each with its figures."""
    texts = {name: one for name, one in variants.items() if not CATALOGUE[name].is_image}
    return [
        *_tell_forgetting(texts),
        *_tell_differences(texts),
        *_tell_costs(texts),
        *_tell_noise(texts),
    ]


def _tell_forgetting(variants: Variants) -> Iterator[str]:
    for name in ("recurrent", "recurrent-attention", _BASE):
        if name in variants and len(rates := errors_by_length(variants[name])) > 1:
            spans = variants[name]["runs"][0]["by_length"]
            yield (
                f"{CATALOGUE[name].title}: {rates[0]:.1%} of the phonemes are wrong for "
                f"{_span(spans[0])} letters, {rates[-2]:.1%} for {_span(spans[-2])}, "
                f"{rates[-1]:.1%} for {_span(spans[-1])}."
            )
    pair = ("recurrent", "recurrent-attention")
    if all(name in variants and len(errors_by_length(variants[name])) > 1 for name in pair):
        without, attentive = (errors_by_length(variants[name]) for name in pair)
        gaps = [one - other for one, other in zip(without, attentive, strict=True)]
        verb = "grows" if gaps[-2] > 2 * max(gaps[0], 0.01) else "does not clearly grow"
        spans = [_span(span) for span in variants[pair[0]]["runs"][0]["by_length"]]
        yield (
            f"What attention spares the recurrent model is {100 * gaps[0]:.1f} points of error for "
            f"{spans[0]} letters and {100 * gaps[-2]:.1f} for {spans[-2]}: with the same encoder, "
            f"budget and data, the gap {verb} with the length."
        )
    if _BASE in variants and len(rates := errors_by_length(variants[_BASE])) > 1:
        growth = rates[-2] - rates[0]
        if growth > 0.05:
            yield (
                "Attention alone does not make errors independent of the length: after this "
                f"budget those of the Transformer grow by {100 * growth:.1f} points over the same "
                "lengths."
            )


def _tell_differences(variants: Variants) -> Iterator[str]:
    spread = measure_spread(variants)
    if spread is None or _BASE not in variants:
        return
    base = mean_error(variants[_BASE])
    yield (
        f"Another seed moves the error by up to {100 * spread:.1f} points. Less than twice that "
        "is taken for no difference."
    )
    better: list[str] = []
    worse: list[str] = []
    even: list[str] = []
    for name, variant in variants.items():
        if name == _BASE:
            continue
        difference = mean_error(variant) - base
        entry = f"{CATALOGUE[name].title} ({100 * difference:+.1f})"
        if abs(difference) < 2 * spread:
            even.append(entry)
        else:
            (worse if difference > 0 else better).append(entry)
    for group, text in (
        (better, "Fewer errors than the Transformer after this budget, in points"),
        (worse, "More errors than the Transformer after this budget"),
        (even, "No difference to the Transformer that this comparison could tell"),
    ):
        if group:
            yield f"{text}: {'; '.join(group)}."


def _tell_costs(variants: Variants) -> Iterator[str]:
    if _BASE not in variants or len(variants) < 2:
        return
    for key, what in (
        ("step_seconds", "A training step takes least with"),
        ("latency_p50_seconds", "One source alone is answered soonest by"),
    ):
        name = min(variants, key=lambda one: variants[one][key])
        longest = max(variants, key=lambda one: variants[one][key])
        yield (
            f"{what} {CATALOGUE[name].title} ({1000 * variants[name][key]:.1f} ms), most with "
            f"{CATALOGUE[longest].title} ({1000 * variants[longest][key]:.1f} ms); the Transformer "
            f"needs {1000 * variants[_BASE][key]:.1f} ms."
        )


def _span(span: Mapping[str, int]) -> str:
    return f"{span['from']} to {span['to']}"


def _tell_noise(variants: Variants) -> Iterator[str]:
    """Two variants have the same graph but for one factor, so that what they differ by is noise."""
    pair = (_BASE, "dot-product")
    if all(name in variants for name in pair):
        speeds = sorted(variants[name]["tokens_per_second"] for name in pair)
        yield (
            f"{CATALOGUE[pair[0]].title}, and {CATALOGUE[pair[1]].title}, compute the same but for "
            f"a factor, and yet were served with {speeds[0]:,.0f} and {speeds[1]:,.0f} tokens a "
            "second: differences of that size are the machine's."
        )


def name_spans(variants: Variants, names: Sequence[str]) -> list[str]:
    """The spans of lengths, the same for all of some variants."""
    return [
        f"{span['from']}-{span['to']}" if span["from"] < span["to"] else str(span["to"])
        for span in variants[names[0]]["runs"][0]["by_length"]
    ]
