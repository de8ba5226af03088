"""Embedding over gRPC."""

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from fakes import make_sequence
from seqserve.batch import Batch, Outcome
from seqserve.engine import EmbeddingEngine
from seqserve.manifest import read_manifest
from seqserve.shared_sessions import SharedSessions
from seqserve.v1 import encoding_pb2
from serving import MakeServer, RunningServer

PATIENCE_SECONDS = 20.0
TEXTS = ["a b c", "c", "a a a a a a a a b", "b c", "c b a c b a"] * 8


async def embed(running: RunningServer, texts: list[str], **fields: object) -> np.ndarray:
    """Vectors of texts, [N, M]."""
    request = encoding_pb2.EmbedRequest(model_name="sentence", inputs=texts, **fields)  # type: ignore[arg-type]
    reply = await running.encoding.Embed(request)
    return np.array([embedding.values for embedding in reply.embeddings], np.float32)


async def test_embedding_is_the_same_alone_and_in_any_batch(serving: MakeServer) -> None:
    """Bit-identical alone, together and across concurrent calls."""
    async with serving() as running:
        alone = np.concatenate([await embed(running, [text]) for text in TEXTS])
        together = await embed(running, TEXTS)
        apart = await asyncio.gather(*(embed(running, [text]) for text in TEXTS))
    assert np.array_equal(alone, together)
    assert np.array_equal(np.concatenate(apart), alone)


def test_vector_keeps_no_others(store: Path) -> None:
    """It is no view of those of its batch, which a slow reader would keep in memory."""
    folder = store / "sentence" / "1"
    sessions = SharedSessions(folder / "embed.onnx", num_threads=1)
    engine = EmbeddingEngine(sessions, read_manifest(folder))
    batch = Batch("embed", [make_sequence(tokens, is_embedded=True) for tokens in ([5], [6, 7])])
    for vector in engine.run(batch):
        assert isinstance(vector, np.ndarray)
        assert vector.base is None


async def test_concurrent_calls_share_batches(
    serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forty calls that come while the first is computed take one more forward pass."""
    arrived, opened = threading.Event(), threading.Event()
    async with serving(lanes=1, max_batch_tokens=512) as running:
        engine = running.registry.find("sentence", "", None).lanes.workers[0]._engine
        whole = engine.run

        def wait(batch: Batch, *options: object) -> list[Outcome]:
            arrived.set()
            assert opened.wait(PATIENCE_SECONDS)
            return whole(batch)

        monkeypatch.setattr(engine, "run", wait)
        first = asyncio.create_task(embed(running, TEXTS[:1]))
        assert await asyncio.to_thread(arrived.wait, PATIENCE_SECONDS)
        others = [asyncio.create_task(embed(running, [text])) for text in TEXTS]
        async with asyncio.timeout(PATIENCE_SECONDS):
            while running.num_outstanding <= len(TEXTS):
                await asyncio.sleep(0)
        opened.set()
        await asyncio.gather(first, *others)
        sample = running.metrics.registry.get_sample_value(
            "seqserve_step_rows_count",
            {"model_name": "sentence", "model_version": "1", "phase": "embed"},
        )
    assert sample == 2


async def test_normalize_can_be_chosen(serving: MakeServer) -> None:
    """On request vectors have length 1, or the length the model gives them."""
    async with serving() as running:
        unit = await embed(running, TEXTS[:5], normalize=True)
        plain = await embed(running, TEXTS[:5], normalize=False)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(unit, plain / lengths, atol=1e-6)
    assert not np.allclose(lengths, 1.0)
