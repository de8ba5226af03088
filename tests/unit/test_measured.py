"""The figures of the README, and of pages that repeat them, are those of the result files."""

import re
import statistics
from pathlib import Path

import pytest

from measured_tables import MIB, decoding, encoding, exporting, pronouncing, read, serving

ROOT = Path(__file__).parents[2]


def split_rows(text: str) -> list[list[str]]:
    """The cells of every row of every table."""
    rows = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in row.split("|")] for row in rows]


README = (ROOT / "README.md").read_text(encoding="utf-8")
ROWS = split_rows(README)
EXPECTED = [*decoding(), *encoding(), *serving(), *exporting(), *pronouncing()]


@pytest.mark.parametrize("expected", EXPECTED, ids=lambda cells: cells[0].replace(" ", "-"))
def test_tables_have_the_figures_of_the_result_files(expected: tuple[str, ...]) -> None:
    """Rounded; words may follow a figure, and a link what was measured."""
    what, *figures = expected
    (cells,) = [row for row in ROWS if row[0] == what or row[0].startswith(f"{what} (")]
    for cell, figure in zip(cells[1:], figures, strict=True):
        assert cell == figure or (figure and cell.startswith(f"{figure}, "))


def test_sentences_have_the_figures_of_the_result_files() -> None:
    """Those between the tables."""
    text = " ".join(README.split())
    ratios = read("encode.json")["ratios"]
    small = read("encode.json")["parts"]["all-minilm-l6-v2"]
    seconds = {name: statistics.median(times) for name, times in small["bulk_seconds"].items()}
    assert (
        f"int8 is {ratios['bulk_vs_sentence_transformers']:.1f} times sentence-transformers, "
        f"{ratios['bulk_vs_best_onnx']:.1f} times the best ONNX peer of that quality "
        f"({seconds['onnxruntime_int8'] / seconds['seqserve_int8']:.1f} times the best of any), "
        f"and a sentence takes {ratios['single_p50_vs_sentence_transformers']:.2f} of its time; "
        f"in fp32 that is {ratios['bulk_fp32_vs_sentence_transformers']:.1f}, "
        f"{ratios['bulk_fp32_vs_best_onnx_fp32']:.1f} and "
        f"{ratios['single_p50_fp32_vs_sentence_transformers']:.2f}."
    ) in text
    assert (
        f"reaches {ratios['grpc_vs_raw']:.2f} of the graph alone in int8 and "
        f"{seconds['raw_fp32'] / seconds['seqserve_fp32']:.2f} in fp32."
    ) in text
    other = read("decode_other_machine.json")
    offline = other["parts"]["offline"]
    greedy, beams = (
        statistics.median(offline[name]["tokens_per_second"]["ctranslate2"])
        for name in ("greedy", "beam4")
    )
    ratios = other["ratios"]
    assert (
        f"came to {ratios['offline_greedy']:.2f} greedy, {ratios['offline_beam4']:.2f} with 4 "
        f"beams and {ratios['online_throughput']:.2f} for arrivals"
    ) in text
    assert f"({greedy:,.0f} and {beams:,.0f} tokens/s)" in text
    beside = small["fairness_seconds"]["beside"]
    assert (
        f"takes {1000 * statistics.median(beside):.0f} ms in the median and "
        f"{1000 * max(beside):.0f} ms at most."
    ) in text
    overload = read("overload.json")["ratios"]
    assert (
        f"{100 * overload['goodput_of_4']:.0f} % of the capacity is answered in calls of four "
        f"sentences, {100 * overload['goodput_of_1']:.0f} % in calls of one"
    ) in text
    assert f"memory grows by {100 * read('long_run.json')['growth']:.1f} % from" in text
    cost = read("attention_cost.json")
    before, after = cost["before_first_use"], cost["after_first_use"]
    grown = after["explained"]["private_bytes"] - after["plain"]["private_bytes"]
    assert f"{len(before['cpu_ratios'])} rounds on a busy machine" in text
    assert (
        f"until the first `Attend` nothing: {before['cpu_ratio']:.2f} of the processor's time of a "
        f"server without it, and the same memory; then {after['cpu_ratio']:.2f} of the time and "
        f"{grown / MIB:.0f} MiB more memory"
    ) in text


def test_figures_of_other_pages() -> None:
    """The model card has the errors in int8, the report of alignments what the README repeats."""
    card = (ROOT / "export" / "checkpoints" / "g2p-en" / "README.md").read_text(encoding="utf-8")
    rows = split_rows(card)
    for one in read("number_formats.json")["measured"]:
        figures = [f"{100 * one[name]:.2f} %" for name in ("phoneme_error_rate", "word_error_rate")]
        if one["dtype"] == "int8":
            figures.append(f"{100 * one['share_of_same_texts']:.1f} %")
        assert ["greedy" if one["num_beams"] == 1 else "4 beams", *figures] in rows
    report = (ROOT / "export" / "reports" / "alignment.md").read_text(encoding="utf-8")
    chosen, last = (
        row for row in split_rows(report) if row[0] in ("chosen by export", "last layer")
    )
    assert (
        f"{chosen[3]} differ from the obvious alignment, {chosen[4]} by more than one letter; "
        f"{last[3]} by the whole last layer"
    ).replace("%", " %") in README
    decisions = (ROOT / "DECISIONS.md").read_text(encoding="utf-8")
    soak = read("soak.json")
    assert f"{soak['calls']:,} calls in five minutes" in decisions
    assert soak["minutes"] == 5
    assert not any(soak["violations"].values())


def test_what_repeats_a_figure_makes_as_many_rounds() -> None:
    """The README says how many, and that `make bench BENCH=full` repeats it."""
    num_rounds = read("serve.json")["rounds"]
    assert f"medians of {num_rounds} interleaved rounds" in " ".join(README.split())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"bench.serve --rounds {num_rounds})" in makefile
