"""Models in smaller number formats, served: as independent of their neighbours as in fp32."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from seqserve.client import AsyncClient
from seqserve.manifest import Manifest
from seqserve_export import quantization
from seqserve_export.checkpoint import (
    SOURCE_TOKENIZER_FILE,
    TARGET_TOKENIZER_FILE,
    load_checkpoint,
)
from seqserve_export.exporter import export_model
from seqserve_export.precision import Dtype
from seqserve_export.recipes.decoding import decode_all
from seqserve_export.recipes.evaluation import score_predictions
from seqserve_export.recipes.pronunciation_data import read_dictionary, split_words
from serving import MakeServer
from tiny_checkpoint import make_tiny_checkpoint

CHECKPOINT = Path(__file__).parents[2] / "export" / "checkpoints" / "g2p-en"
WORDS = ("a b c", "z", "h e l l o w o r l d", "q q q q", "m n o p q r s t u v w x y z")


async def check_alone_and_together(manifest: Manifest, store: Path, serving: MakeServer) -> None:
    """Greedy and beam search over caches of the format, bit for bit the same."""
    async with (
        serving(models=store) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        assert (await client.get_model()).dtype == manifest.dtype
        for num_beams in (1, 3):
            together = await client.generate(WORDS, num_beams=num_beams, return_scores=True)
            for word, result in zip(WORDS, together, strict=True):
                (alone,) = await client.generate(word, num_beams=num_beams, return_scores=True)
                assert alone.hypotheses == result.hypotheses
        assert len({result.hypotheses[0].token_ids for result in together}) > 1


@pytest.mark.parametrize("dtype", ["int8", "fp16"])
async def test_served_alone_and_together_alike(
    dtype: Dtype, tmp_path: Path, serving: MakeServer
) -> None:
    """A result does not depend on its neighbours."""
    source = make_tiny_checkpoint(tmp_path / "source", 8)
    report = export_model(source, tmp_path / "store", name="small", dtype=dtype)
    await check_alone_and_together(report.manifest, tmp_path / "store", serving)


async def test_rowwise_layers_alone_and_together_alike(
    tmp_path: Path, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does it where every layer of an int8 model is rowwise."""
    monkeypatch.setattr(quantization, "MAX_STATIC_ERROR", 0.0)
    monkeypatch.setattr(quantization, "_WORTHWHILE", 0.0)  # or smoothing would do better
    source = make_tiny_checkpoint(tmp_path / "source", 8)
    manifest = export_model(source, tmp_path / "store", name="small", dtype="int8").manifest
    assert manifest.is_batch_invariant
    assert manifest.layers is not None
    forms = [layer.form for layer in manifest.layers]
    assert forms.count("rowwise") > len(forms) / 2
    await check_alone_and_together(manifest, tmp_path / "store", serving)


async def test_shipped_model_bears_int8(tmp_path: Path, serving: MakeServer) -> None:
    """Of 300 unseen words, more than 95 % are pronounced as in fp32, and as many are right.

    ``tests/bench/number_formats.py`` measures all 6,000: 99.3 %, so that 15 others among 300 would
    be a chance of less than 1 in 10^6.
    """
    report = export_model(CHECKPOINT, tmp_path / "store", name="g2p", dtype="int8")
    assert report.calibrated_on == "42 samples of the checkpoint"
    test = split_words(read_dictionary(), num_test=6000, num_valid=2500, seed=1).test
    words = list(test)[:300]
    async with (
        serving(models=tmp_path / "store", max_inputs_per_request=len(words)) as server,
        AsyncClient(f"127.0.0.1:{server.ports.grpc}") as client,
    ):
        texts = [result.text for result in await client.generate(words)]
    checkpoint = load_checkpoint(CHECKPOINT)
    source = Tokenizer.from_file(str(CHECKPOINT / SOURCE_TOKENIZER_FILE))
    target = Tokenizer.from_file(str(CHECKPOINT / TARGET_TOKENIZER_FILE))
    sources = [source.encode(word).ids for word in words]
    decoded = decode_all(checkpoint.model, sources, checkpoint.generation, num_beams=1)
    originals = [target.decode(tokens) for tokens in decoded]
    assert sum(text == original for text, original in zip(texts, originals, strict=True)) > 285
    listed = [test[word] for word in words]
    scores = [
        score_predictions([text.split() for text in pronounced], listed)
        for pronounced in (texts, originals)
    ]
    assert abs(scores[0].word_error_rate - scores[1].word_error_rate) < 0.03
