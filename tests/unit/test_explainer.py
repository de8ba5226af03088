"""The explainer: one pass at a time, ended when nobody waits for it, and nothing not finite."""

import asyncio
import gc
import threading
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import structlog

from seqserve import explainer
from seqserve.attention_kind import AttentionKind
from seqserve.errors import NonFiniteError, PassInterruptedError
from seqserve.explainer import Explainer, Question
from seqserve.explanation_record import ExplanationRecord
from seqserve.manifest import Manifest

QUESTION = Question(source_tokens=(5, 6), heads={AttentionKind.ENCODER_SELF: {1: (0, 2)}})


class FakeManifest:
    """As much of a manifest as an explainer reads."""

    explanation = ExplanationRecord(graph="explain.onnx", num_encoder_layers=2, num_heads=3)
    generation = None
    name, version = "fake", "1"


class FakePass:
    """Takes the place of a run: holds passes until they are let go or ended."""

    def __init__(self) -> None:
        self.feeds: list[dict[str, Any]] = []
        self.go = threading.Event()
        self.ended: list[int] = []
        self.value = 0.5

    def __call__(self, session: Any, names: list[str], feeds: Any, options: Any) -> list[Any]:
        """As ``run_interruptibly``."""
        self.feeds.append(feeds)
        number = len(self.feeds)
        while not self.go.wait(0.001):
            if options.terminate:
                self.ended.append(number)
                raise PassInterruptedError("ended")
        assert names == ["encoder_attentions.1"]
        return [np.full((1, 2, 2, 2), self.value, np.float32)]


def finish(session: Any, names: list[str], feeds: Any, options: Any) -> list[Any]:
    """A pass that is done at once."""
    return [np.full((1, 2, 2, 2), 0.5, np.float32)]


@pytest.fixture
def fake_pass(monkeypatch: pytest.MonkeyPatch) -> FakePass:
    """What runs instead of onnxruntime."""
    fake = FakePass()
    monkeypatch.setattr(explainer, "run_interruptibly", fake)
    return fake


def fail_when_ended(error: Exception) -> Any:
    """A pass that fails otherwise than by being ended, when it is."""

    def run(session: Any, names: list[str], feeds: Any, options: Any) -> list[Any]:
        while not options.terminate:
            time.sleep(0.001)
        raise error

    return run


def make_explainer() -> Explainer:
    """One whose graph is open."""
    made = Explainer(Path(), cast(Manifest, FakeManifest()), ageing_seconds=30.0)
    made._session = object()
    return made


async def wait_for_passes(fake_pass: FakePass, number: int) -> None:
    """Waits until so many have begun."""
    async with asyncio.timeout(10):
        while len(fake_pass.feeds) < number:
            await asyncio.sleep(0)


async def test_chosen_heads_reach_the_graph(fake_pass: FakePass) -> None:
    """Layers that are not asked for have none; weights come without the dimension of the row."""
    fake_pass.go.set()
    found = await make_explainer().explain(QUESTION)
    (weights,) = found.weights[AttentionKind.ENCODER_SELF]
    assert weights.shape == (2, 2, 2)
    (feeds,) = fake_pass.feeds
    assert feeds["encoder_heads.0"].tolist() == []
    assert feeds["encoder_heads.1"].tolist() == [0, 2]
    assert (feeds["input_ids"].tolist(), feeds["source_lengths"].tolist()) == ([[5, 6]], [2])


async def test_passes_take_turns_and_end_with_their_callers(fake_pass: FakePass) -> None:
    """A second one begins when the first has ended, be it because nobody waits for it."""
    made = make_explainer()
    first = asyncio.create_task(made.explain(QUESTION))
    await wait_for_passes(fake_pass, 1)
    second, third = (asyncio.create_task(made.explain(QUESTION)) for _ in range(2))
    await asyncio.sleep(0)
    assert len(fake_pass.feeds) == 1
    second.cancel()  # it has not had its turn
    first.cancel()
    await wait_for_passes(fake_pass, 2)
    assert fake_pass.ended == [1]
    fake_pass.go.set()
    assert (await third).seconds > 0
    assert len(fake_pass.feeds) == 2
    for task in (first, second):
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_failure_of_a_pass_that_nobody_waits_for_is_logged(
    fake_pass: FakePass, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unless it is that it was ended; asyncio complains of neither."""
    unheard: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unheard.append(context))
    made = make_explainer()
    with structlog.testing.capture_logs() as logs:
        for end in (None, ValueError("broken")):
            if end is not None:
                monkeypatch.setattr(explainer, "run_interruptibly", fail_when_ended(end))
            leaving = asyncio.create_task(made.explain(QUESTION))
            await asyncio.sleep(0.05)
            leaving.cancel()
            await asyncio.wait([leaving])
            # The next one has its turn when that pass has ended.
            monkeypatch.setattr(explainer, "run_interruptibly", finish)
            await made.explain(QUESTION)
            del leaving
            gc.collect()
    assert [entry["event"] for entry in logs] == ["pass that nobody waits for failed"]
    assert unheard == []


async def test_what_is_not_finite_never_leaves(fake_pass: FakePass) -> None:
    """It is an error, and the next pass has its turn."""
    made = make_explainer()
    fake_pass.go.set()
    for value in (np.nan, np.inf):
        fake_pass.value = value
        with pytest.raises(NonFiniteError, match="weights of attention that are not finite"):
            await made.explain(QUESTION)
    fake_pass.value = 0.5
    assert await made.explain(QUESTION)
