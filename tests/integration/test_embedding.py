"""Embedding over gRPC."""

import asyncio

import numpy as np

from seqserve.v1 import encoding_pb2
from serving import MakeServer, RunningServer

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


async def test_concurrent_calls_share_batches(serving: MakeServer) -> None:
    """Forty calls at once take fewer forward passes than forty."""
    async with serving() as running:
        await asyncio.gather(*(embed(running, [text]) for text in TEXTS))
        sample = running.metrics.registry.get_sample_value(
            "seqserve_step_rows_count",
            {"model_name": "sentence", "model_version": "1", "phase": "embed"},
        )
    assert sample is not None
    assert sample < len(TEXTS)


async def test_normalize_can_be_chosen(serving: MakeServer) -> None:
    """On request vectors have length 1, or the length the model gives them."""
    async with serving() as running:
        unit = await embed(running, TEXTS[:5], normalize=True)
        plain = await embed(running, TEXTS[:5], normalize=False)
    lengths = np.linalg.norm(plain, axis=1, keepdims=True)
    np.testing.assert_allclose(np.linalg.norm(unit, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(unit, plain / lengths, atol=1e-6)
    assert not np.allclose(lengths, 1.0)
