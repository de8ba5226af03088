"""The comparison of variants: what they learn, how they are judged, and what is reported."""

import io
import itertools
import json
import random
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.console import Console

from seqserve.manifest import read_manifest
from seqserve_export.recipes.attention_panels import Panel, draw_panels
from seqserve_export.recipes.compare import Comparison, main
from seqserve_export.recipes.comparison_evaluation import score_by_length
from seqserve_export.recipes.comparison_findings import list_findings, measure_spread
from seqserve_export.recipes.comparison_report import format_report, read_figures, write_report
from seqserve_export.recipes.comparison_serving import Extent
from seqserve_export.recipes.comparison_task import Task
from seqserve_export.recipes.comparison_training import Budget, Run, train
from seqserve_export.recipes.line_chart import Line, LineChart, draw_line_chart
from seqserve_export.recipes.pronunciation_data import Dictionary, Split
from seqserve_export.variants.lettering import LETTERS, draw, render, to_text, to_tokens

_PHONEMES = {"a": "AA", "b": "B", "d": "D", "i": "IY", "k": "K", "m": "M"}
_SPANS = ((1, 8), (9, 16), (17, 24), (25, 60))
BUDGET = Budget(num_steps=3, batch_size=4)


def make_split() -> Split:
    """Words of two to five letters, each pronounced letter by letter."""
    generator = random.Random(3)
    words = {"".join(generator.choices([*_PHONEMES], k=generator.randint(2, 5))) for _ in range(60)}
    entries: Dictionary = {
        word: [tuple(_PHONEMES[letter] for letter in word)] for word in sorted(words)
    }
    parts = [dict(itertools.islice(entries.items(), start, None, 2)) for start in (0, 1)]
    return Split(train=parts[0], valid={}, test=parts[1])


def test_phrases_of_the_test_have_no_word_that_was_trained_on() -> None:
    """And more words than any of the training."""
    split = make_split()
    task = Task(split, is_image=False)
    questions = task.draw_questions(80)
    words = [question.text.split() for question in questions]
    assert not set(split.train) & {word for phrase in words for word in phrase}
    assert {len(phrase) for phrase in words} == {1, 2, 3, 4}
    gap = task.source.get_vocab()[" "]
    examples = task.draw_examples(80, seed=1)
    assert {example.source.count(gap) for example in examples} == {0, 1, 2}
    assert examples == task.draw_examples(80, seed=1)
    assert examples != task.draw_examples(80, seed=2)


def test_phrase_is_pronounced_in_every_way_of_its_words() -> None:
    """With a pause between the words."""
    words: Dictionary = {"ab": [("AA", "B"), ("B",)]}
    task = Task(Split(train=words, valid={}, test=words), is_image=False)
    phrase = next(one for one in task.draw_questions(40) if one.text == "ab ab")
    found = [task.target.decode(tokens) for tokens in phrase.example.targets]
    assert found == ["AA B / AA B", "AA B / B", "B / AA B", "B / B"]


def test_image_is_the_same_as_tokens_and_as_text() -> None:
    """Columns are hexadecimal digits in a text; every letter has a form, and no two the same."""
    task = Task(make_split(), is_image=True)
    (question,) = task.draw_questions(1)
    assert task.source.encode(question.text).ids == question.example.source
    columns = render("k'm", random.Random(1))
    assert task.source.encode(to_text(columns)).ids == to_tokens(columns)
    assert len(draw(columns).splitlines()) == 12
    assert len(set(LETTERS.values())) == len(LETTERS) == 27


def test_what_cannot_be_rendered_is_refused() -> None:
    """The message names the characters, or the room there is."""
    with pytest.raises(ValueError, match=r"'!é' cannot be rendered; letterforms are there for a"):
        render("é!a", random.Random(1))
    with pytest.raises(ValueError, match=r"columns of pixels, but may take 160"):
        render("m" * 60, random.Random(1))


def test_errors_are_counted_by_the_length_of_the_source() -> None:
    """Spans that no source falls into are left out."""
    questions = Task(make_split(), is_image=False).draw_questions(40)
    right = [question.example.targets[0] for question in questions]
    scores = score_by_length(right, questions, (0, 8, 16, 60, 90))
    assert scores["token_error_rate"] == 0
    assert [(one["from"], one["to"]) for one in scores["by_length"]] == [(1, 8), (9, 16), (17, 60)]
    wrong = [
        [] if question.num_letters > 8 else tokens
        for question, tokens in zip(questions, right, strict=True)
    ]
    by_length = score_by_length(wrong, questions, (0, 8, 60))["by_length"]
    assert [one["token_error_rate"] for one in by_length] == [0, 1]


def test_other_budget_is_refused(tmp_path: Path) -> None:
    """A training that has ended is taken as it is, or not at all."""
    task = Task(make_split(), is_image=False)
    run = Run(name="recurrent", seed=1, work=tmp_path)
    found = train(run, task, BUDGET)
    assert found["num_steps"] == 3
    assert train(run, task, BUDGET) == found
    with pytest.raises(ValueError, match="choose another --work, or remove it"):
        train(run, task, Budget(num_steps=6, batch_size=4))


def test_unknown_variant_is_refused() -> None:
    """The message lists what there is."""
    result = CliRunner().invoke(main, ["--only", "recurrent,convolutional"])
    assert result.exit_code == 2
    assert "there is no convolutional; there are transformer, dot-product," in result.output


def test_report_is_written_anew_from_its_figures(tmp_path: Path) -> None:
    """Without measuring; refused where there are no figures."""
    write_report(make_record(), tmp_path)
    report = tmp_path / "variants.md"
    text = report.read_text()
    report.unlink()
    runner = CliRunner()
    assert runner.invoke(main, ["--no-measure", "--out", str(tmp_path)]).exit_code == 0
    assert report.read_text() == text
    refused = runner.invoke(main, ["--no-measure", "--out", str(tmp_path / "none")])
    assert refused.exit_code == 2
    assert "does not exist; leave out --no-measure" in " ".join(refused.output.split())


def test_committed_report_is_that_of_its_figures() -> None:
    """Nobody has edited it by hand."""
    folder = Path(__file__).parents[2] / "export" / "reports"
    assert (folder / "variants.md").read_text() == format_report(read_figures(folder))


def test_comparison_trains_serves_and_reports(tmp_path: Path) -> None:
    """From words to a report, with the smallest of all budgets."""
    comparison = Comparison(
        split=make_split(),
        names=("recurrent",),
        seeds=(1, 2),
        budget=BUDGET,
        num_questions=12,
        extent=Extent(num_rounds=2, num_singles=3),
        work=tmp_path / "work",
        console=Console(file=io.StringIO()),
    )
    comparison.run(tmp_path / "out")
    record = json.loads((tmp_path / "out" / "variants.json").read_text())
    found = record["variants"]["recurrent"]
    assert [run["seed"] for run in found["runs"]] == [1, 2]
    assert found["num_equal_answers"] == found["num_answers"] == 12
    assert found["attention_difference"] is None
    assert min(found["tokens_per_second"], found["step_seconds"]) > 0
    assert read_manifest(tmp_path / "work" / "store" / "recurrent" / "1").explanation is None
    assert "recurrent, without attention | 2 |" in (tmp_path / "out" / "variants.md").read_text()


def make_variant(rates: list[list[float]], **figures: Any) -> dict[str, Any]:
    """A variant with error rates by length for each seed."""
    runs = [
        {
            "num_steps": 3,
            "num_parameters": 1000,
            "processor_seconds": 12.3,
            "token_error_rate": sum(seed) / len(seed),
            "target_error_rate": 0.5,
            "by_length": [
                {"from": low, "to": high, "num_questions": 10, "token_error_rate": rate}
                for (low, high), rate in zip(_SPANS, seed, strict=True)
            ],
        }
        for seed in rates
    ]
    return {
        "runs": runs,
        "title": "a variant",
        "step_seconds": 0.05,
        "tokens_per_second": 1000.0,
        "latency_p50_seconds": 0.004,
        "latency_p95_seconds": 0.005,
        "weight_bytes": 800_000,
        "cache_bytes_per_token": 512,
        "num_answers": 10,
        "num_equal_answers": 10,
        "largest_difference": 1e-6,
        "is_batch_invariant": True,
        "attention_kinds": ["cross"],
        "attention_difference": 1e-7,
        "shown": {
            "rows": ["AA", "</s>"],
            "columns": ["a", "<", "</s>"],
            "weights": [[0.9, 0.1, 0], [0, 0, 1]],
        },
    } | figures


def make_variants() -> dict[str, Any]:
    """Two that are clearly apart, one that is not, and one that reads images."""
    return {
        "transformer": make_variant([[0.10, 0.10, 0.12, 0.30], [0.10, 0.12, 0.12, 0.32]]),
        "recurrent": make_variant([[0.15, 0.30, 0.55, 0.80]], step_seconds=0.02, shown=None),
        "recurrent-attention": make_variant([[0.10, 0.11, 0.12, 0.33]]),
        "image": make_variant([[0.1, 0.1, 0.1, 0.1]]),
    }


def make_record() -> dict[str, Any]:
    """What a comparison has found."""
    return {
        "machine": {
            "processor": "a processor",
            "cpus": 2,
            "load_average": 1.0,
            "packages": {"torch": "2", "onnxruntime": "1"},
        },
        "budget": {"num_steps": 3, "batch_size": 4, "learning_rate": 0.004},
        "seeds": [1, 2],
        "num_questions": 40,
        "extent": {"num_rounds": 2},
        "variants": make_variants(),
    }


def test_findings_are_no_more_than_the_figures_carry() -> None:
    """A difference counts from twice that of seeds; without seeds none is claimed."""
    variants = make_variants()
    assert measure_spread(variants) == pytest.approx(0.01)
    text = "\n".join(list_findings(variants))
    assert "15.0% of the phonemes are wrong for 1 to 8 letters, 55.0% for 17 to 24" in text
    assert "5.0 points of error for 1 to 8 letters and 43.0 for 17 to 24" in text
    assert "the gap grows with the length" in text
    assert (
        "More errors than the Transformer after this budget: recurrent, without attention" in text
    )
    assert "could tell: recurrent, with additive attention (+0.5)" in text
    assert "A training step takes least with recurrent, without attention (20.0 ms)" in text
    assert "image" not in text
    assert "those of the Transformer" not in text  # which lose little by little
    variants["transformer"]["runs"].pop()
    assert measure_spread(variants) is None
    assert "More errors" not in "\n".join(list_findings(variants))


def test_report_has_every_variant_and_its_pictures(tmp_path: Path) -> None:
    """Tables, pictures that are well-formed and small, and the figures themselves."""
    record = make_record()
    write_report(record, tmp_path)
    assert json.loads((tmp_path / "variants.json").read_text()) == record
    text = (tmp_path / "variants.md").read_text()
    assert text == format_report(record)
    assert (
        "| Transformer: scaled dot product, 4 heads | 2 | 10.0% | 11.0% | 12.0% | 31.0% |" in text
    )
    assert "**Images.** image of a word to its letters: 40 rendered words" in text
    assert "{" not in text
    for picture in tmp_path.glob("*.svg"):
        assert f"({picture.name})" in text
        ElementTree.parse(picture)
        assert picture.stat().st_size < 20_000
    assert len(list(tmp_path.glob("*.svg"))) == 3


def test_images_alone_are_reported_without_phrases() -> None:
    """There is no table of phrases then, and no picture of it."""
    record = make_record() | {"variants": {"image": make_variant([[0.1, 0.2, 0.1, 0.1]])}}
    text = format_report(record)
    assert "None of the variants reads phrases." in text
    assert "variants-memory.svg" not in text


def test_panels_are_dark_where_weights_are_large() -> None:
    """What is hardly attended to is left out; texts are escaped."""
    shown = make_variant([[0.1, 0.1, 0.1, 0.1]])["shown"]
    root = ElementTree.fromstring(draw_panels([Panel(title="a & b", **shown)] * 4))
    cells = [one.attrib for one in root.iter() if "fill-opacity" in one.attrib]
    assert [float(cell["fill-opacity"]) for cell in cells[:3]] == [0.9, 0.1, 1.0]
    assert len(cells) == 12
    texts = [one.text for one in root.iter() if one.tag.endswith("text")]
    assert texts[:6] == ["a & b", "a", "<", "end", "AA", "end"]


def test_labels_of_lines_do_not_overlap() -> None:
    """Lines that end at the same place have labels below each other, inside the picture."""
    lines = [Line(f"line <{index}>", [0.1, 0.9, 0.001 * index]) for index in range(12)]
    chart = LineChart(title="t", places=["a", "b", "c"], x_label="x", y_label="y", lines=lines)
    root = ElementTree.fromstring(draw_line_chart(chart))
    texts = [one for one in root.iter() if one.tag.endswith("text")]
    heights = sorted(float(one.attrib["y"]) for one in texts if (one.text or "").startswith("line"))
    assert len(heights) == 12
    assert all(after - before >= 12 for before, after in itertools.pairwise(heights))
    assert heights[0] > 0
    assert heights[-1] < 400
