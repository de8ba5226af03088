"""Models with a head: loaded, listed, and run by worker and engine."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from fakes import make_sequence
from seqserve.batch import Batch
from seqserve.engine import PredictionEngine
from seqserve.errors import EngineError
from seqserve.manifest import read_manifest
from seqserve.sequence import EncoderOutput, Sequence
from seqserve.served_model import ServedModel
from seqserve.shared_sessions import SharedSessions
from seqserve.v1 import encoding_pb2, model_pb2
from serving import TOKEN_LABELS, MakeServer, status_of
from tiny_encoder_folder import VOCABULARY_SIZE

MASK_TOKEN = 4
NUM_SOURCES = 24


async def predict(
    model: ServedModel, sources: list[list[int]], *, is_pair: bool = False
) -> list[np.ndarray]:
    """Logits of sources, submitted at once; of a pair, the second half is the second text."""
    loop = asyncio.get_running_loop()
    futures: list[asyncio.Future[EncoderOutput]] = [loop.create_future() for _ in sources]
    model.lanes.submit(
        Sequence(
            source_tokens=tuple(tokens),
            token_types=tuple(int(2 * i >= len(tokens)) for i in range(len(tokens)))
            if is_pair
            else (),
            future=future,
            submitted_at=time.monotonic(),
        )
        for tokens, future in zip(sources, futures, strict=True)
    )
    return [answer.values for answer in await asyncio.gather(*futures)]


def open_engine(folder: Path) -> PredictionEngine:
    """The engine of a model folder."""
    manifest = read_manifest(folder)
    assert manifest.prediction is not None
    sessions = SharedSessions(folder / manifest.prediction.graph, num_threads=1)
    return PredictionEngine(sessions, manifest)


def make_sources() -> list[list[int]]:
    """Ragged sources with masks, one of them without."""
    generator = np.random.default_rng(3)
    sources = [
        generator.integers(MASK_TOKEN, VOCABULARY_SIZE, generator.integers(1, 40)).tolist()
        for _ in range(NUM_SOURCES)
    ]
    for tokens in sources[1:]:
        tokens[int(generator.integers(len(tokens)))] = MASK_TOKEN
    sources[0] = [5, 6]
    return sources


@pytest.mark.parametrize(
    ("task", "width"), [("classify", 3), ("classify_tokens", 4), ("rerank", 1), ("fill_mask", 90)]
)
async def test_logits_are_the_same_alone_and_in_any_batch(
    task: str, width: int, heads: Path, serving: MakeServer
) -> None:
    """Each sequence gets its own logits, without padding, bit-identical alone and together."""
    sources = make_sources()
    async with serving(models=heads) as running:
        model = running.registry.find(task, "", None)
        together = await predict(model, sources)
        alone = [(await predict(model, [tokens]))[0] for tokens in sources]
    for tokens, logits, single in zip(sources, together, alone, strict=True):
        shape: tuple[int, ...] = (width,)
        if task == "classify_tokens":
            shape = (len(tokens), width)
        elif task == "fill_mask":
            shape = (tokens.count(MASK_TOKEN), width)
        assert logits.shape == shape
        assert np.array_equal(logits, single)


@pytest.mark.parametrize("task", ["classify", "rerank"])
async def test_types_tell_pairs_from_texts(task: str, heads: Path, serving: MakeServer) -> None:
    """The types of tokens reach the graph; without them a source is a single text."""
    sources = [tokens for tokens in make_sources() if len(tokens) > 1]
    async with serving(models=heads) as running:
        model = running.registry.find(task, "", None)
        texts, pairs = await predict(model, sources), await predict(model, sources, is_pair=True)
    assert not any(np.allclose(text, pair) for text, pair in zip(texts, pairs, strict=True))


def test_logits_that_are_not_finite_fail_their_sequence_alone(
    heads: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be a result is an error, and the neighbours get theirs."""
    folder = heads / "classify" / "1"
    engine = open_engine(folder)
    run = engine._sessions.run

    def spoil(*arguments: Any) -> list[np.ndarray]:
        (logits,) = run(*arguments)
        logits[0] = np.nan
        return [logits]

    monkeypatch.setattr(engine._sessions, "run", spoil)
    sequences = [make_sequence(tokens, is_embedded=True) for tokens in ([5, 6], [7, 8])]
    first, second = engine.run(Batch("embed", sequences))
    assert isinstance(first, EngineError)
    assert str(first) == "the model returned no finite logits"
    assert isinstance(second, np.ndarray)


async def test_heads_are_listed(heads: Path, serving: MakeServer) -> None:
    """Each model says what it does, and with what."""
    async with serving(models=heads) as running:
        listed = (await running.model.ListModels(model_pb2.ListModelsRequest())).models
    models = {model.name: model for model in listed}
    assert {name: list(model.tasks) for name, model in models.items()} == {
        "classify": [model_pb2.TASK_CLASSIFY],
        "classify_tokens": [model_pb2.TASK_CLASSIFY_TOKENS],
        "rerank": [model_pb2.TASK_RERANK],
        "fill_mask": [model_pb2.TASK_FILL_MASK],
    }
    assert models["classify"].classification == model_pb2.ClassificationSettings(
        labels=["LABEL_0", "LABEL_1", "LABEL_2"],
        problem_type=model_pb2.PROBLEM_TYPE_SINGLE_LABEL,
        has_token_types=True,
    )
    assert tuple(models["classify_tokens"].token_classification.labels) == TOKEN_LABELS
    assert models["rerank"].reranking.activation == model_pb2.RERANKING_ACTIVATION_SIGMOID
    assert models["fill_mask"].mask_filling == model_pb2.MaskFillingSettings(
        mask_token="[MASK]", mask_token_id=MASK_TOKEN
    )


@pytest.mark.parametrize("task", ["classify", "classify_tokens", "rerank", "fill_mask"])
def test_logits_of_a_sequence_keep_no_others(task: str, heads: Path) -> None:
    """They are no view of those of the batch, which a slow reader would keep in memory."""
    folder = heads / task / "1"
    engine = open_engine(folder)
    sources = [[5, MASK_TOKEN], [7, MASK_TOKEN, 8]]
    batch = Batch("embed", [make_sequence(tokens, is_embedded=True) for tokens in sources])
    for outcome in engine.run(batch):
        assert isinstance(outcome, np.ndarray)
        assert outcome.base is None


@pytest.mark.parametrize("task", ["classify", "classify_tokens", "rerank", "fill_mask"])
async def test_heads_do_not_embed(task: str, heads: Path, serving: MakeServer) -> None:
    """Embed names what the model can do instead."""
    async with serving(models=heads) as running:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await running.encoding.Embed(
                encoding_pb2.EmbedRequest(model_name=task, inputs=["the cat"])
            )
    assert status_of(caught.value) == (
        f"UNIMPLEMENTED: model '{task}' cannot embed; it can: {task}"
    )
