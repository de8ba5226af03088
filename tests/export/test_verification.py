"""A model that differs from its graphs is refused, and nothing reaches the store."""

import re
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from seqserve_export import exporter, generation_filling
from seqserve_export.errors import VerificationError
from seqserve_export.generation_verification import GenerationVerifier
from seqserve_export.onnx_writer import GraphModule
from seqserve_export.reference_search import Hypothesis, SearchLimits
from seqserve_export.search_verification import TorchJudge, _compare_hypotheses
from seqserve_export.source import GenerationSource
from seqserve_export.source_folder import read_source_folder
from seqserve_export.verification import Comparison
from seqserve_export.weight_file import WeightFile


def _read(checkpoint: Path) -> GenerationSource:
    source = read_source_folder(checkpoint, is_pickle_allowed=False)
    assert isinstance(source, GenerationSource)
    return source


def _verify(source: GenerationSource, graphs: Path) -> None:
    GenerationVerifier(source, graphs / "encode.onnx", graphs / "decode.onnx").verify()


def _perturb(weight: torch.Tensor) -> None:
    with torch.no_grad():
        weight[0, 0] += 0.2


def test_unchanged_model_passes(tiny_checkpoint: Path, tiny_store: Path) -> None:
    """The verifier accepts the graphs of the model they were exported from."""
    _verify(_read(tiny_checkpoint), tiny_store / "tiny" / "1")


def test_different_encoder_weight_is_named(tiny_checkpoint: Path, tiny_store: Path) -> None:
    """One other weight in the torch encoder is refused; the message names check and tensor."""
    source = _read(tiny_checkpoint)
    _perturb(source.model.get_parameter("encoder.layers.0.feed_forward.up.weight"))
    with pytest.raises(
        VerificationError,
        match=r"encode: torch and ONNX.*: last_hidden_state of row \d.* differs by .*, tolerance",
    ):
        _verify(source, tiny_store / "tiny" / "1")


def test_different_projection_is_named(tiny_checkpoint: Path, tiny_store: Path) -> None:
    """One other weight in a projection of the source is traced to its layer."""
    source = _read(tiny_checkpoint)
    _perturb(source.model.get_parameter("decoder.layers.1.cross_attention.key.weight"))
    with pytest.raises(VerificationError, match=r"encode: .*: present\.1\.encoder\.key of row 0"):
        _verify(source, tiny_store / "tiny" / "1")


def test_different_decoder_weight_is_named(tiny_checkpoint: Path, tiny_store: Path) -> None:
    """One other weight in the torch decoder is refused; the message names row and step."""
    source = _read(tiny_checkpoint)
    _perturb(source.model.get_parameter("decoder.layers.1.self_attention.value.weight"))
    with pytest.raises(VerificationError, match=r"decode: torch .*: logits of row \d+, step \d+"):
        _verify(source, tiny_store / "tiny" / "1")


def test_different_onnx_weight_is_refused(
    tiny_checkpoint: Path, tiny_store: Path, tmp_path: Path
) -> None:
    """One other weight in a graph file is refused."""
    graphs = Path(shutil.copytree(tiny_store / "tiny" / "1", tmp_path / "graphs"))
    proto = onnx.load(graphs / "decode.onnx")
    weight = max(proto.graph.initializer, key=lambda initializer: initializer.ByteSize())
    changed = numpy_helper.to_array(weight).copy()
    changed[3] += 0.1
    weight.CopyFrom(numpy_helper.from_array(changed, weight.name))
    onnx.save(proto, graphs / "decode.onnx")
    with pytest.raises(VerificationError, match="decode: torch"):
        _verify(_read(tiny_checkpoint), graphs)


def test_nothing_is_written_on_failure(
    tiny_checkpoint: Path, tiny_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed verification leaves neither a new store nor a change in an existing one."""

    def write_wrong_graph(graph: GraphModule, folder: Path, name: str, weights: WeightFile) -> Path:
        proto = onnx.load(tiny_store / "tiny" / "1" / f"{name}.onnx")
        for initializer in proto.graph.initializer:
            values = numpy_helper.to_array(initializer)
            if values.dtype == np.float32 and values.ndim == 2:
                changed = numpy_helper.from_array(values * np.float32(1.01), initializer.name)
                initializer.CopyFrom(changed)
        onnx.save(proto, folder / f"{name}.onnx")
        return folder / f"{name}.onnx"

    monkeypatch.setattr(generation_filling, "write_graph", write_wrong_graph)
    with pytest.raises(VerificationError):
        exporter.export_model(tiny_checkpoint, tmp_path / "store")
    assert list(tmp_path.iterdir()) == []

    store = Path(shutil.copytree(tiny_store, tmp_path / "store"))
    before = sorted(store.rglob("*"))
    with pytest.raises(VerificationError):
        exporter.export_model(tiny_checkpoint, store, name="tiny", version="2")
    with pytest.raises(VerificationError):
        exporter.export_model(tiny_checkpoint, store, name="tiny", is_replacing=True)
    assert sorted(store.rglob("*")) == before


def test_nan_is_a_difference() -> None:
    """A value that is not a number fails, whatever the tolerance."""
    comparison = Comparison("check", 1e9)
    with pytest.raises(VerificationError, match="check: here differs by nan"):
        comparison.add(np.zeros(2, np.float32), np.array([0, np.nan], np.float32), "here")


def test_differences_of_large_values_are_relative_on_request() -> None:
    """Of values around 100 a relative comparison allows a hundred times as much, of small none."""
    large, small = np.array([100, 0], np.float32), np.array([0.5, 0], np.float32)
    comparison = Comparison("check", 1e-3)
    comparison.add(large, large + np.float32(0.05), "here")
    assert comparison.to_record().max_abs_difference == pytest.approx(5e-4, rel=1e-2)
    with pytest.raises(VerificationError, match="check: there differs by"):
        comparison.add(small, small + np.float32(0.05), "there")
    with pytest.raises(VerificationError, match="check: there differs by nan"):
        comparison.add(small, small * np.float32(np.nan), "there")


def test_last_bits_are_noticed() -> None:
    """A difference within the tolerance passes, but is not bit-identical."""
    comparison = Comparison("check", 1e-3)
    comparison.add(np.ones(2, np.float32), np.ones(2, np.float32), "here")
    assert comparison.is_bit_identical
    comparison.add(np.ones(2, np.float32), np.nextafter(np.ones(2, np.float32), 2), "there")
    assert not comparison.is_bit_identical
    assert comparison.to_record().count == 2


LIMITS = SearchLimits(decoder_start_token_id=2, eos_token_id=1, max_new_tokens=8)


def _compare(logits: list[float], *, num_hypotheses: int, shift: float = 0.0) -> int:
    """Compares [4, 1] with [5, 1], where torch gives these logits after every target."""

    def next_logits(targets: list[list[int]]) -> torch.Tensor:
        return torch.tensor([logits] * len(targets))

    judge = TorchJudge(next_logits, LIMITS, length_penalty=1.0)
    wanted, found = (
        Hypothesis(tokens=tokens, score=judge.score(tokens) + change)
        for tokens, change in (((4, 1), 0.0), ((5, 1), shift))
    )
    rest = [Hypothesis(tokens=(3, 1), score=-9.0)] * (num_hypotheses - 1)
    return _compare_hypotheses(
        Comparison("search"), [wanted, *rest], [found, *rest], judge, "a source"
    )


@pytest.mark.parametrize("num_hypotheses", [1, 4])
def test_near_ties_may_differ(num_hypotheses: int) -> None:
    """Other tokens pass, and are counted, when they score the same."""
    logits = [0.0, 1.0, 0.0, 0.0, 3.0, 3.000001]
    assert _compare(logits, num_hypotheses=num_hypotheses) == 1


def test_greedy_ties_are_judged_where_they_part() -> None:
    """Greedy targets that part at equal tokens pass, though what follows scores differently."""

    def next_logits(targets: list[list[int]]) -> torch.Tensor:
        rows = {(2,): [0.0, 1.0, 0.0, 0.0, 3.0, 3.0], (2, 4): [0.0, 2.0, 0.0, 0.0, 0.0, 0.0]}
        return torch.tensor([rows.get(tuple(target), [0.0] * 6) for target in targets])

    judge = TorchJudge(next_logits, LIMITS, length_penalty=1.0)
    wanted, found = (
        Hypothesis(tokens=tokens, score=judge.score(tokens)) for tokens in ((4, 1), (5, 0))
    )
    assert abs(wanted.score - found.score) > 0.1
    assert _compare_hypotheses(Comparison("search"), [wanted], [found], judge, "a source") == 1


@pytest.mark.parametrize("num_hypotheses", [1, 4])
def test_worse_tokens_are_refused(num_hypotheses: int) -> None:
    """Other tokens with another score fail; the message shows both."""
    message = re.escape("hypothesis 0 of a source is [5, 1] with score")
    with pytest.raises(VerificationError, match=message):
        _compare([0.0, 1.0, 0.0, 0.0, 3.0, 2.9], num_hypotheses=num_hypotheses)


def test_wrong_scores_of_ties_are_refused() -> None:
    """A near tie whose score torch cannot confirm fails."""
    with pytest.raises(VerificationError, match="score of hypothesis 0"):
        _compare([0.0, 1.0, 0.0, 0.0, 3.0, 3.0], num_hypotheses=1, shift=-0.5)
