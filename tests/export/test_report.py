"""What the closing report says about quality."""

import io
from pathlib import Path

from rich.console import Console

from seqserve.manifest import (
    LayerRecord,
    Manifest,
    Provenance,
    QualityRecord,
    VerificationRecord,
)
from seqserve.task_record import EmbeddingRecord, Task
from seqserve_export.exporter import Plan, Report
from seqserve_export.report import print_report


def render(quality: QualityRecord | None, fp32_layers: tuple[str, ...]) -> str:
    """The report of an encoder in int8 with four layers, in words."""
    names = ("query", "key", "value", "output")
    layers = tuple(
        LayerRecord(
            name=name, form="fp32" if name in fp32_layers else "static", relative_error=0.01
        )
        for name in names
    )
    manifest = Manifest.model_construct(
        manifest_version=1,
        name="small",
        version="1",
        tasks=(Task.EMBED,),
        family="bert",
        dtype="int8",
        source_tokenizer="tokenizer.json",
        source_vocabulary_size=90,
        max_source_length=32,
        embedding=EmbeddingRecord(
            embed_graph="embed.onnx", embedding_size=32, pooling="mean", normalize=True
        ),
        is_batch_invariant=True,
        verification=(
            VerificationRecord(check="embed", count=1, max_abs_difference=0.0, tolerance=0.1),
        ),
        layers=layers,
        quality=quality,
        provenance=Provenance(source="small", exporter="test", libraries={}),
        files={},
    )
    plan = Plan(
        folder=Path("store/small/1"),
        name="small",
        version="1",
        task=Task.EMBED,
        family="bert",
        dtype="int8",
        num_parameters=1,
        source_bytes=1,
        notes=(),
    )
    report = Report(plan=plan, manifest=manifest, seconds=1.0, fp32_layers=fp32_layers)
    output = io.StringIO()
    print_report(report, Console(file=output, width=120))
    return " ".join(output.getvalue().split())


def make_quality(num_fp32_layers: int, num_near_ties: int = 0) -> QualityRecord:
    """Of a model of four linear layers."""
    return QualityRecord(
        measure="lowest cosine of embeddings",
        texts="40 built-in texts",
        count=40,
        value=0.99312,
        threshold=0.99,
        mean=0.99871,
        num_near_ties=num_near_ties,
        num_layers=4,
        num_fp32_layers=num_fp32_layers,
    )


def test_quality_is_shown_with_its_threshold() -> None:
    """Value, mean, texts, and the layers it took."""
    text = render(make_quality(1), ("key", "output"))
    assert "quality judged on │ 40 built-in texts" in text
    assert "lowest cosine of embeddings │ 0.9931, at least 0.99 (of 40)" in text
    assert "mean cosine │ 0.9987" in text
    assert "layers in fp32 for quality │ 1 of 4" in text
    assert (
        "note: 2 layers stay in fp32 (1 of them for the quality gate), since int8 would be too far "
        "off: key, output"
    ) in text
    assert "near ties" not in text
    assert "warning" not in text


def test_near_ties_are_counted() -> None:
    """Where any were decided otherwise."""
    assert "near ties decided otherwise │ 3" in render(make_quality(0, num_near_ties=3), ())


def test_models_that_are_all_fp32_are_warned_of() -> None:
    """They are not what was asked for."""
    text = render(make_quality(4), ("query", "key", "value", "output"))
    assert (
        "warning: all 4 linear layers stay in fp32, since int8 does not reach the quality gate: "
        "this model is hardly smaller or faster than in fp32; calibrate on texts of its domain "
        "(--calibration), or serve it as fp32"
    ) in text


def test_models_without_a_gate_say_nothing_of_it() -> None:
    """Those that generate."""
    text = render(None, ("key",))
    assert "quality" not in text
    assert "note: 1 layers stay in fp32, since int8 would be too far off: key" in text
