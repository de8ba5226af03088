"""What encoders say, on the page in a real browser: what the client of the package is told, too."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from real_browser import launched, shoot, visiting
from seqserve.client import AsyncClient
from serving import MakeServer

pytestmark = pytest.mark.needs("chromium-headless-shell", "playwright")
TEXT = "the old cat sat on the mat"
DOCUMENTS = ["a cat", "the old dog", "mat"]
TOLERANCE = 0.006
"""Of what is shown with two digits or more."""


@contextlib.asynccontextmanager
async def visited(
    serving: MakeServer, models: Path, name: str
) -> AsyncIterator[tuple[Any, AsyncClient]]:
    """The page with a model chosen, and a client of the same server."""
    async with (
        launched() as browser,
        serving(models=models, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground) as page,
        AsyncClient(f"127.0.0.1:{running.ports.grpc}") as client,
    ):
        await page.locator("#model").select_option(label=f"{name} · 1")
        yield page, client


async def read_bars(page: Any) -> list[tuple[str, float]]:
    """Labels and numbers, once they are there."""
    await page.locator(".bar").first.wait_for()
    rows = [(await bar.inner_text()).split("\n") for bar in await page.locator(".bar").all()]
    return [(row[0], float(row[-1])) for row in rows]


async def test_labels(heads: Path, serving: MakeServer) -> None:
    """All of them, the best first; of a pair, others."""
    async with visited(serving, heads, "classify") as (page, client):
        await page.get_by_label("Text", exact=True).fill(TEXT)
        await page.get_by_role("button", name="Classify").click()
        shown = await read_bars(page)
        (found,) = await client.classify(TEXT, model="classify")
        await page.get_by_label("Second text").fill(DOCUMENTS[1])
        earlier = await page.locator(".bar").first.element_handle()
        await page.get_by_role("button", name="Classify").click()
        await earlier.wait_for_element_state("hidden")
        await shoot(page, "labels")
        shown_pair = await read_bars(page)
        (found_pair,) = await client.classify((TEXT, DOCUMENTS[1]), model="classify")
    for bars, result in ((shown, found), (shown_pair, found_pair)):
        assert [label for label, _ in bars] == [one.label for one in result.labels]
        scores = [one.score for one in result.labels]
        assert [score for _, score in bars] == pytest.approx(scores, abs=TOLERANCE)


async def test_entities(heads: Path, serving: MakeServer) -> None:
    """Marked in the text, which stays whole."""
    async with visited(serving, heads, "classify_tokens") as (page, client):
        await page.get_by_label("Text", exact=True).fill(TEXT)
        await page.get_by_role("button", name="Tag").click()
        await page.locator(".tagged").wait_for()
        await shoot(page, "entities")
        marks = await page.locator(".tagged mark").all_inner_texts()
        labels = await page.locator(".tagged mark small").all_inner_texts()
        whole = await page.locator(".tagged").evaluate(
            "node => { node.querySelectorAll('small').forEach((one) => one.remove());"
            " return node.textContent; }"
        )
        (found,) = await client.classify_tokens(TEXT, model="classify_tokens")
    assert found.entities
    parts = [TEXT[one.start_offset : one.end_offset] for one in found.entities]
    assert [label.upper() for label in labels] == [one.label.upper() for one in found.entities]
    assert all(mark.startswith(part) for mark, part in zip(marks, parts, strict=True))
    assert whole == TEXT


async def test_order(heads: Path, serving: MakeServer) -> None:
    """Of documents, the best first; blank lines are none."""
    async with visited(serving, heads, "rerank") as (page, client):
        await page.get_by_label("Query").fill("cat")
        await page.get_by_label("Documents, one a line").fill("\n\n".join(DOCUMENTS) + "\n")
        await page.get_by_role("button", name="Rank").click()
        shown = await read_bars(page)
        await shoot(page, "order")
        found = await client.rerank("cat", DOCUMENTS, model="rerank")
    assert [text for text, _ in shown] == [DOCUMENTS[one.index] for one in found]
    assert [score for _, score in shown] == pytest.approx(
        [one.score for one in found], abs=TOLERANCE
    )


async def test_similarity(store: Path, serving: MakeServer) -> None:
    """The cosines of all pairs of texts."""
    async with visited(serving, store, "sentence") as (page, client):
        await page.get_by_label("Texts, one a line").fill("\n".join(DOCUMENTS))
        await page.get_by_role("button", name="Compare").click()
        await page.locator("td.cell").first.wait_for()
        shown = [float(one) for one in await page.locator("td.cell").all_inner_texts()]
        await shoot(page, "similarity")
        vectors = (await client.embed(DOCUMENTS, model="sentence", normalize=True)).vectors
    cosines = vectors @ vectors.T
    assert np.array(shown).reshape(3, 3) == pytest.approx(cosines, abs=TOLERANCE)
    assert np.ptp(cosines) > 10 * TOLERANCE
