"""The quality gate: what it turns back to fp32, in which order, and when it gives up.

The invariant: the model it returns is the one it asked last, which agrees enough; the layers turned
back are those with the largest errors of their own, no more than twice as many as are needed; and
none of an encoder's layers is turned back where the answers agree from the start.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from seqserve.task_record import Task
from seqserve_export import quantization
from seqserve_export.agreement import LEAST_COSINE
from seqserve_export.calibration import Calibration, calibrate_encoder
from seqserve_export.encoder_answers import answer_in_torch
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.encoder_rows import EncoderSource, Row
from seqserve_export.errors import VerificationError
from seqserve_export.onnx_runner import Floats
from seqserve_export.precision import Dtype, Reduction, copy_in_precision, rank_layers
from seqserve_export.quality_gate import QualityGate
from seqserve_export.verification import torch_reference
from tiny_encoder_folder import TEXT, find_variant, make_tiny_encoder_folder

NUM_LAYERS = 12


def read(folder: Path, task: Task, **settings: Any) -> EncoderSource:
    """A tiny BERT of two layers with six linear ones each."""
    make_tiny_encoder_folder(folder, find_variant("bert"), task, **settings)
    return read_encoder_folder(folder, is_pickle_allowed=False)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EncoderSource:
    """It embeds; not to be changed."""
    return read(tmp_path_factory.mktemp("source"), Task.EMBED)


@pytest.fixture(scope="module")
def gate(source: EncoderSource) -> QualityGate:
    """Of this model."""
    return QualityGate(source, (), ())


@pytest.fixture(scope="module")
def right(source: EncoderSource, gate: QualityGate) -> list[Floats]:
    """What it answers."""
    return answer(source, source.model, gate)


def answer(source: EncoderSource, model: EncoderModel, gate: QualityGate) -> list[Floats]:
    """Answers of a copy of the model in torch."""
    with torch_reference():
        return list(answer_in_torch(source, model, gate.rows))


def calibrate(source: EncoderSource) -> Calibration:
    """On the texts of the tiny tokenizer."""
    encoded = source.tokenizer.encode_batch(list(TEXT))
    rows: list[Row] = [(encoding.ids, None) for encoding in encoded]
    return calibrate_encoder(source.model, rows)


def reduce(
    source: EncoderSource, dtype: Dtype = "int8"
) -> tuple[Reduction[EncoderModel], Calibration]:
    """The model in another format, and what that was chosen on."""
    calibration = calibrate(source)
    return copy_in_precision(source.model, dtype, calibration), calibration


class FakeAnswers:
    """Answers like the original once certain layers are in fp32, and like nothing before."""

    def __init__(self, source: EncoderSource, right: list[Floats], needed: set[str]) -> None:
        self._source = source
        self._right = right
        self._needed = needed
        self.asked: list[EncoderModel] = []

    def __call__(self, model: EncoderModel) -> Iterable[Floats]:
        """Answers for a model."""
        self.asked.append(model)
        is_right = all(isinstance(model.get_submodule(name), nn.Linear) for name in self._needed)
        if "embedding" in self._needed:
            is_right = model is self._source.model
        return self._right if is_right else [-answer for answer in self._right]


@pytest.mark.parametrize("num_needed", range(NUM_LAYERS + 1))
def test_worst_layers_are_turned_back_until_enough(
    source: EncoderSource, gate: QualityGate, right: list[Floats], num_needed: int
) -> None:
    """None, 1, 2, 4, 8 or all: the fewest of these that reach the gate."""
    reduction, calibration = reduce(source)
    assert reduction.layers is not None
    errors = {layer.name: layer.relative_error for layer in reduction.layers}
    ranked = sorted(errors, key=lambda name: errors[name], reverse=True)
    answers = FakeAnswers(source, right, set(ranked[:num_needed]))
    judgement = gate.judge(reduction, calibration, answers)
    record = judgement.record
    assert record.num_fp32_layers in (0, 1, 2, 4, 8, NUM_LAYERS)
    assert num_needed <= record.num_fp32_layers <= max(2 * num_needed - 1, num_needed)
    assert record.num_layers == NUM_LAYERS
    assert record.value == pytest.approx(1)
    turned_back = set(ranked[: record.num_fp32_layers])
    assert set(judgement.reduction.fp32_layers) == turned_back
    assert judgement.reduction.layers is not None
    for layer in judgement.reduction.layers:
        assert (layer.form == "fp32") is (layer.name in turned_back)
        assert layer.relative_error == errors[layer.name]
        module = judgement.reduction.model.get_submodule(layer.name)
        assert isinstance(module, nn.Linear) is (layer.name in turned_back)
    assert answers.asked[-1] is judgement.reduction.model


def test_embeddings_come_last(
    source: EncoderSource, gate: QualityGate, right: list[Floats]
) -> None:
    """With all linear layers in fp32 the original itself is left."""
    reduction, calibration = reduce(source)
    answers = FakeAnswers(source, right, {"embedding"})
    judgement = gate.judge(reduction, calibration, answers)
    assert judgement.reduction.model is source.model
    assert judgement.record.num_fp32_layers == NUM_LAYERS
    assert len(judgement.reduction.fp32_layers) == NUM_LAYERS
    assert len(answers.asked) == len((0, 1, 2, 4, 8, NUM_LAYERS, "embeddings"))


def test_graphs_that_are_wrong_in_fp32_are_refused(
    source: EncoderSource, gate: QualityGate
) -> None:
    """No format is to blame then; the message has the numbers."""
    reduction, calibration = reduce(source)

    wrong = [np.full(32, np.nan, np.float32) for _ in gate.rows]
    with pytest.raises(VerificationError) as caught:
        gate.judge(reduction, calibration, lambda model: wrong)
    assert str(caught.value) == (
        f"quality: lowest cosine of embeddings is nan in {len(gate.rows):,} cases with everything "
        f"in fp32, and must be at least {LEAST_COSINE}: graph and torch disagree"
    )


def plant_outlier(model: EncoderModel, name: str) -> None:
    """Has one input of a feed-forward layer's second half be huge and without effect."""
    up, down = (model.get_submodule(f"{name}.{part}") for part in ("up", "down"))
    assert isinstance(up, nn.Linear)
    assert isinstance(down, nn.Linear)
    up.bias.data[0] = 5000
    down.weight.data[:, 0] = 0


@pytest.mark.parametrize("dtype", ["int8", "fp16"])
def test_bad_layers_are_found(
    dtype: Dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that int8 ruins is turned back alone; fp16 does not mind it."""
    source = read(tmp_path, Task.EMBED)
    bad = "encoder.layers.1.feed_forward.down"
    plant_outlier(source.model, bad.removesuffix(".down"))
    # Smoothing would save it, and by its own error alone it would have stayed in fp32.
    monkeypatch.setattr(quantization, "_WORTHWHILE", 0.0)
    monkeypatch.setattr(quantization, "MAX_RELATIVE_ERROR", float("inf"))
    reduction, calibration = reduce(source, dtype)
    gate = QualityGate(source, (), ())

    judgement = gate.judge(reduction, calibration, lambda model: answer(source, model, gate))
    assert judgement.reduction.fp32_layers == ((bad,) if dtype == "int8" else ())
    assert judgement.record.num_fp32_layers == len(judgement.reduction.fp32_layers)
    assert LEAST_COSINE <= judgement.record.value < 1
    assert judgement.record.mean is not None
    assert judgement.record.mean >= judgement.record.value


def test_layers_that_stay_by_themselves_are_not_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gate has nothing to do where quantization saw to it."""
    monkeypatch.setattr(quantization, "_WORTHWHILE", 0.0)  # or smoothing would
    source = read(tmp_path, Task.EMBED)
    bad = "encoder.layers.1.feed_forward.down"
    plant_outlier(source.model, bad.removesuffix(".down"))
    reduction, calibration = reduce(source)
    gate = QualityGate(source, (), ())
    judgement = gate.judge(
        reduction, calibration, FakeAnswers(source, answer(source, source.model, gate), {bad})
    )
    assert judgement.reduction.fp32_layers == (bad,)
    assert judgement.record.num_fp32_layers == 0


def test_layers_without_records_are_ranked_by_measuring(source: EncoderSource) -> None:
    """fp16 keeps none: the layer whose outputs on samples are off most is first."""
    reduction, calibration = reduce(source, "fp16")
    ruined = "encoder.layers.0.self_attention.query"
    reduction.model.get_parameter(f"{ruined}.weight").data.fill_(float("nan"))
    ranked = rank_layers(reduction, source.model, calibration)
    assert ranked[0] == ruined
    assert len(ranked) == NUM_LAYERS


@pytest.mark.parametrize(
    ("task", "settings_", "measure"),
    [
        (Task.EMBED, {}, "lowest cosine of embeddings"),
        (Task.CLASSIFY, {}, "same best labels"),
        (
            Task.CLASSIFY,
            {"problem_type": "multi_label_classification"},
            "same set of labels",
        ),
        (Task.CLASSIFY, {"problem_type": "regression"}, "same order of pairs of scores"),
        (Task.RERANK, {}, "same order of pairs of scores"),
        (Task.CLASSIFY_TOKENS, {}, "same best labels of tokens"),
        (Task.FILL_MASK, {}, "same best tokens of masks"),
    ],
    ids=str,
)
def test_tasks_are_measured_by_what_they_decide(
    task: Task, settings_: dict[str, Any], measure: str, tmp_path: Path
) -> None:
    """The original passes, of course; each case of the texts is counted."""
    source = read(tmp_path, task, **settings_)
    gate = QualityGate(source, (), ())
    reduction = Reduction(model=source.model)

    calibration = calibrate(source)
    record = gate.judge(reduction, calibration, lambda model: answer(source, model, gate)).record
    assert record.measure == measure
    assert record.value == pytest.approx(1)
    assert record.num_near_ties == 0
    num_texts = len(gate.rows)
    assert num_texts >= 200
    frame = {2, 3}
    counts = {
        "lowest cosine of embeddings": num_texts,
        "same best labels": num_texts,
        "same set of labels": num_texts,
        "same best labels of tokens": sum(
            token not in frame for tokens, _ in gate.rows for token in tokens
        ),
        "same best tokens of masks": sum(tokens.count(4) for tokens, _ in gate.rows),
    }
    if measure in counts:
        assert record.count == counts[measure]
    elif task is Task.RERANK:
        assert record.count <= num_texts / 4 * 6
    else:
        assert record.count % (num_texts * (num_texts - 1) // 2) == 0
