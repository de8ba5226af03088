"""A model with a head that differs from its graph is refused."""

from pathlib import Path

import pytest
import torch

from seqserve.task_record import Task
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.errors import VerificationError
from seqserve_export.onnx_writer import write_graph
from seqserve_export.prediction_graph import PredictGraph
from seqserve_export.prediction_verification import PredictionVerifier
from seqserve_export.source import PredictionSource
from seqserve_export.weight_file import WeightFile
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny masked language model, not to be changed."""
    folder = tmp_path_factory.mktemp("source")
    return make_tiny_encoder_folder(folder, find_variant("bert"), Task.FILL_MASK)


@pytest.fixture(scope="module")
def graph(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its graph."""
    source = _read(folder)
    module = PredictGraph(source.model, source.head, mask_token=source.mask_token)
    out = tmp_path_factory.mktemp("graph")
    return write_graph(module, out, "predict", WeightFile(out))


def _read(folder: Path) -> PredictionSource:
    source = read_encoder_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, PredictionSource)
    return source


def test_unchanged_model_passes(folder: Path, graph: Path) -> None:
    """The verifier accepts the graph of the model it was exported from."""
    verification = PredictionVerifier(_read(folder), graph).verify()
    assert verification.is_batch_invariant
    assert [record.count for record in verification.records] == [12 + 1 + 1 + 2 + 7 + 64, 64]


@pytest.mark.parametrize("weight", ["encoder", "head"])
def test_different_weight_is_refused(weight: str, folder: Path, graph: Path) -> None:
    """One other weight in encoder or head is noticed; the message names check and row."""
    source = _read(folder)
    with torch.no_grad():
        if weight == "head":
            source.head.output.bias[7] += 0.01
        else:
            source.model.get_parameter("encoder.layers.1.feed_forward.up.weight")[0] += 0.5
    message = (
        r"predict: torch and ONNX, ragged batches: logits of row \d+ in a batch of \d+ differs"
    )
    with pytest.raises(VerificationError, match=message):
        PredictionVerifier(source, graph).verify()


def test_graph_of_masks_gives_logits_of_masks_alone(folder: Path) -> None:
    """Row after row, without the masks behind the end of a source."""
    source = _read(folder)
    module = PredictGraph(source.model, source.head, mask_token=source.mask_token)
    tokens = torch.tensor([[2, 4, 9, 4], [4, 3, 4, 4], [5, 6, 7, 8]])
    lengths = torch.tensor([4, 2, 4], dtype=torch.int32)
    with torch.inference_mode():
        together = module(tokens, lengths)
        first = module(tokens[:1], lengths[:1])
        second = module(tokens[1:2, :2], lengths[1:2])
    assert together.shape == (3, 90)
    torch.testing.assert_close(together, torch.cat([first, second]))
