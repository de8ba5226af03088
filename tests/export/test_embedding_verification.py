"""The graph of an encoder in int8 is held against torch in int8, and refused where they differ."""

from pathlib import Path

import pytest

from seqserve.task_record import Task
from seqserve_export.calibration import calibrate_encoder
from seqserve_export.embedding_verification import EmbeddingVerifier
from seqserve_export.encoder_answers import make_graph
from seqserve_export.encoder_folder import read_encoder_folder
from seqserve_export.encoder_model import EncoderModel
from seqserve_export.encoder_rows import encode_texts
from seqserve_export.errors import VerificationError
from seqserve_export.onnx_writer import write_graph
from seqserve_export.precision import copy_in_precision
from seqserve_export.source import EmbeddingSource
from seqserve_export.weight_file import WeightFile
from tiny_encoder_folder import TEXT, find_variant, make_tiny_encoder_folder


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> EmbeddingSource:
    """A tiny BERT that embeds; not to be changed."""
    folder = tmp_path_factory.mktemp("source")
    make_tiny_encoder_folder(folder, find_variant("bert"), Task.EMBED)
    source = read_encoder_folder(folder, is_pickle_allowed=False)
    assert isinstance(source, EmbeddingSource)
    return source


@pytest.fixture(scope="module")
def path(source: EmbeddingSource, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its graph in int8."""
    folder = tmp_path_factory.mktemp("graph")
    graph = make_graph(source, _reduce(source))
    return write_graph(graph, folder, "embed", WeightFile(folder))


def _reduce(source: EmbeddingSource) -> EncoderModel:
    calibration = calibrate_encoder(source.model, encode_texts(source, TEXT))
    return copy_in_precision(source.model, "int8", calibration).model


def test_graph_equals_torch_in_its_format(source: EmbeddingSource, path: Path) -> None:
    """Closer than either is to the original, with bits that do not depend on the batch."""
    verification = EmbeddingVerifier(source, path, model=_reduce(source), dtype="int8").verify()
    assert verification.is_batch_invariant
    outputs = verification.records[0]
    assert outputs.check == "embed: torch and ONNX, ragged batches, norms"
    assert outputs.max_abs_difference < outputs.tolerance


@pytest.mark.parametrize(
    "name",
    [
        "embedding.token.scales",
        "encoder.layers.0.self_attention.value.weight_scales",
        "encoder.layers.1.feed_forward.down.weight_scales",
    ],
)
def test_other_weights_are_refused(name: str, source: EmbeddingSource, path: Path) -> None:
    """One tensor of int8 that is three times as large is noticed; check and row are named."""
    model = _reduce(source)
    tensor = model.get_buffer(name)
    tensor.copy_(3 * tensor)
    verifier = EmbeddingVerifier(source, path, model=model, dtype="int8")
    message = r"torch and ONNX.* row \d+ in a batch of \d+ differs by"
    with pytest.raises(VerificationError, match=message):
        verifier.verify()
