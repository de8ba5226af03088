"""The page in a real browser: what a person sees who types, hovers, and uses no mouse.

Pictures of it are left in ``tests/screenshots``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bearer_metadata import INFER
from held_engine import HeldEngine
from real_browser import launched, shoot, visiting
from seqserve.task_record import Task
from seqserve.v1 import generation_pb2
from seqserve_export.exporter import export_model
from serving import MakeServer, RunningServer
from tiny_encoder_folder import find_variant, make_tiny_encoder_folder

pytestmark = pytest.mark.needs("chromium-headless-shell", "playwright")
ROOT = Path(__file__).parents[2]
WORD = "onomatopoeia"
CROSS, ENCODER, DECODER = (
    f"ATTENTION_KIND_{name}" for name in ("CROSS", "ENCODER_SELF", "DECODER_SELF")
)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with the shipped pronunciation model, which tells its attention."""
    torch.set_num_threads(1)
    store = tmp_path_factory.mktemp("store")
    export_model(ROOT / "export/checkpoints/g2p-en", store, name="g2p-en", is_explained=True)
    return store


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model for masks that tells its attention."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("sources")
    store = tmp_path_factory.mktemp("store")
    source = make_tiny_encoder_folder(folder / "bert", find_variant("bert"), Task.FILL_MASK)
    export_model(source, store, name="bert", is_explained=True)
    return store


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    """A browser without windows."""
    async with launched() as browser:
        yield browser


async def generate(page: Any, text: str = WORD) -> None:
    """Has the page pronounce a word, and waits for what it attended to."""
    await page.get_by_label("Source", exact=True).fill(text)
    await page.get_by_role("button", name="Generate").click()
    await page.locator(".attention canvas").first.wait_for()


async def picture_of(page: Any) -> str:
    """What the heat map shows."""
    drawn: str = await page.locator(".map canvas").evaluate("canvas => canvas.toDataURL()")
    return drawn


async def choose(page: Any, label: str, value: str) -> dict[str, Any]:
    """Chooses from a list; returns the request that follows."""
    async with page.expect_request("**/Attend") as caught:
        await page.get_by_label(label, exact=True).select_option(value)
    request = await caught.value
    await request.response()
    asked: dict[str, Any] = request.post_data_json
    return asked


async def letters_of(running: RunningServer) -> list[str]:
    """What the phonemes of the word came from, as the gRPC port tells it."""
    response = await running.generation.Generate(
        generation_pb2.GenerateRequest(
            inputs=[generation_pb2.GenerateInput(text=WORD)], return_alignments=True
        )
    )
    alignment = response.results[0].hypotheses[0].alignment
    return [WORD[index] for index in alignment.source_indices if index >= 0]


async def test_target_streams_in(
    browser: Any, shown: Path, serving: MakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each token stands there before the next one is computed; Stop ends the call."""
    async with serving(models=shown, playground=True, playground_port=0) as running:
        engine = HeldEngine(running, "g2p-en", monkeypatch)
        async with visiting(browser, running.ports.playground) as page:
            await page.get_by_label("Source", exact=True).fill(WORD)
            await page.get_by_role("button", name="Generate").click()
            output = page.get_by_role("group", name="Target", exact=True)
            seen = []
            for num_batches, text in ((2, "AA"), (1, "AA N"), (1, "AA N AH")):
                engine.step(num_batches)
                await page.wait_for_function(
                    "text => document.querySelector('.output').textContent === text", arg=text
                )
                seen.append(await output.get_attribute("aria-busy"))
            await shoot(page, "streaming")
            await page.get_by_role("button", name="Stop").click()
            await page.wait_for_function("document.querySelector('.output').ariaBusy === 'false'")
            assert await output.text_content() == "AA N AH"
            engine.open()
            await wait_for_cancellation(page, running)
    assert seen == ["true"] * 3


async def wait_for_cancellation(page: Any, running: RunningServer) -> None:
    """Waits until the server has noticed."""
    while not running.count_calls("CANCELLED"):
        await page.wait_for_timeout(10)


async def test_hovered_token_shows_what_it_attended_to(
    browser: Any, shown: Path, serving: MakeServer
) -> None:
    """The letter that a phoneme came from; layers, heads and reductions change the picture."""
    async with (
        serving(models=shown, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground) as page,
    ):
        await generate(page)
        tokens = page.get_by_role("group", name="Target tokens").get_by_role("button")
        strong = page.get_by_role("group", name="Attended tokens").locator(".strong")
        found = []
        for index in range(await tokens.count() - 1):
            await tokens.nth(index).hover()
            found.append(await strong.inner_text())
        assert found == await letters_of(running)
        await tokens.nth(3).hover()
        assert (await page.locator(".readout").inner_text()).startswith("M attends to m 0.")
        await shoot(page, "cross-light")

        pictures = [await picture_of(page)]
        asked = [await choose(page, "Shown", "NONE")]
        pictures.append(await picture_of(page))
        await page.get_by_role("button", name="Head 3").click()
        assert await page.get_by_label("Head", exact=True).input_value() == "2"
        pictures.append(await picture_of(page))
        asked.append(await choose(page, "Layer", "0"))
        pictures.append(await picture_of(page))
        for value in ("MEAN_HEADS", "MEAN", "MAX"):
            asked.append(await choose(page, "Shown", value))
            pictures.append(await picture_of(page))
        asked.append(await choose(page, "Who looks at what", ENCODER))
        pictures.append(await picture_of(page))
        asked.append(await choose(page, "Shown", "ROLLOUT"))
        asked.append(await choose(page, "Who looks at what", DECODER))
        pictures.append(await picture_of(page))
        await shoot(page, "decoder-rollout-light")
    reduction = "ATTENTION_REDUCTION_"
    wanted = [
        (CROSS, "NONE", [1]),
        (CROSS, "NONE", [0]),
        (CROSS, "MEAN_HEADS", [0]),
        (CROSS, "MEAN", None),
        (CROSS, "MAX", None),
        (ENCODER, "MAX", None),
        (ENCODER, "ROLLOUT", None),
        (DECODER, "ROLLOUT", None),
    ]
    assert [
        (one["kinds"][0], one["reduction"].removeprefix(reduction), one.get("layers"))
        for one in asked
    ] == wanted
    assert "target" not in asked[6]
    assert len(set(pictures)) == len(pictures)


async def test_everything_can_be_done_without_a_mouse(
    browser: Any, shown: Path, serving: MakeServer
) -> None:
    """Tab, arrows and Ctrl + Enter; what has the focus is marked, and what changes is read out."""
    async with (
        serving(models=shown, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground, color_scheme="dark") as page,
    ):
        await page.get_by_role("tab", name="Generate").wait_for()
        keyboard = page.keyboard
        await focus_by_tab(page, "document.activeElement.tagName === 'TEXTAREA'")
        await keyboard.type(WORD)
        await keyboard.press("Control+Enter")
        await page.locator(".attention canvas").first.wait_for()
        await page.wait_for_function(
            "document.getElementById('status').textContent === 'Done: AA N AH M AE T AH P OW IY AH'"
        )
        await focus_by_tab(page, "document.activeElement.classList.contains('token')")
        for _ in range(3):
            await keyboard.press("ArrowRight")
        assert (await page.locator(".readout").inner_text()).startswith("M attends to m")
        assert await page.locator(".readout").get_attribute("aria-live") == "polite"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await page.evaluate(outline) == "solid"
        await keyboard.press("End")
        assert (await page.locator(".readout").inner_text()).startswith("</s> attends to")
        await focus_by_tab(page, "document.activeElement.tagName === 'CANVAS'")
        await keyboard.press("ArrowUp")
        await keyboard.press("ArrowRight")
        assert (await page.locator(".readout").inner_text()).startswith("AH attends to n 0.")
        await shoot(page, "keyboard-dark")


async def focus_by_tab(page: Any, condition: str) -> None:
    """Presses Tab until what has the focus is what is wanted."""
    for _ in range(40):
        await page.keyboard.press("Tab")
        if await page.evaluate(condition):
            return
    raise AssertionError(f"Tab never leads to where {condition}")


async def test_every_control_has_a_name(browser: Any, shown: Path, serving: MakeServer) -> None:
    """Those who hear the page know what they are at."""
    async with (
        serving(models=shown, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground) as page,
    ):
        await generate(page)
        await page.locator("details > summary").first.click()
        nameless = await page.evaluate(
            """() => [...document.querySelectorAll('button, input, select, textarea, canvas')]
              .filter((one) => one.checkVisibility() && one.ariaHidden !== 'true')
              .filter((one) => !one.labels?.length
                && !one.getAttribute('aria-label') && !one.textContent.trim())
              .map((one) => one.outerHTML)"""
        )
        await shoot(page, "options-light")
    assert nameless == []


async def test_light_and_dark_follow_the_machine(
    browser: Any, shown: Path, serving: MakeServer
) -> None:
    """Also while the page is open: maps and tokens are drawn anew."""
    async with (
        serving(models=shown, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground, color_scheme="light") as page,
    ):
        await generate(page)
        ground = "getComputedStyle(document.documentElement).backgroundColor"
        light = await page.evaluate(ground), await picture_of(page)
        await page.emulate_media(color_scheme="dark")
        dark = await page.evaluate(ground), await picture_of(page)
        await shoot(page, "cross-dark")
    assert (light[0], dark[0]) == ("rgb(246, 247, 249)", "rgb(18, 22, 28)")
    assert light[1] != dark[1]


async def test_small_screen_is_not_exceeded(browser: Any, shown: Path, serving: MakeServer) -> None:
    """The page scrolls down and never sideways; a wide map scrolls within itself."""
    small = {"width": 390, "height": 800}
    async with (
        serving(models=shown, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground, viewport=small) as page,
    ):
        await generate(page, "incomprehensibilities")
        width = await page.evaluate("document.documentElement.scrollWidth")
        await shoot(page, "small-light")
    assert width <= 390


async def test_error_of_the_server_is_shown_in_its_words(
    browser: Any, shown: Path, serving: MakeServer
) -> None:
    """With its status and the request id; the next success takes it away."""
    async with (
        serving(models=shown, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground) as page,
    ):
        await page.get_by_label("Source", exact=True).fill(WORD)
        await page.locator("details > summary").first.click()
        await page.get_by_label("Beams", exact=True).fill("99")
        await page.get_by_role("button", name="Generate").click()
        alert = page.get_by_role("alert")
        await alert.locator("strong").wait_for()
        text = await alert.inner_text()
        await shoot(page, "error-light")
        await page.get_by_label("Beams", exact=True).fill("2")
        await page.get_by_role("button", name="Generate").click()
        await page.locator(".attention canvas").first.wait_for()
        assert await alert.is_hidden()
    assert text.startswith("INVALID_ARGUMENT\n")
    assert "`num_beams` must be at most 16, but is 99" in text
    assert "request " in text


async def test_token_is_kept_in_memory_alone(
    browser: Any, shown: Path, serving: MakeServer, token_file: Path
) -> None:
    """Nothing is listed without it; afterwards no storage and no address holds it."""
    async with (
        serving(models=shown, playground=True, playground_port=0, token_file=token_file) as running,
        visiting(browser, running.ports.playground) as page,
    ):
        alert = page.get_by_role("alert")
        await alert.locator("strong").wait_for()
        assert "UNAUTHENTICATED" in await alert.inner_text()
        await page.get_by_label("Bearer token").fill(INFER)
        await page.get_by_role("button", name="Use").click()
        await generate(page)
        assert await alert.is_hidden()
        kept = await page.evaluate(
            "[{...localStorage}, {...sessionStorage}, document.cookie, location.href]"
        )
        await page.reload()
        await alert.locator("strong").wait_for()
    assert kept == [{}, {}, "", f"http://127.0.0.1:{running.ports.playground}/"]


@pytest.mark.parametrize(
    ("text", "direction"),
    [("مرحبا بالعالم", "rtl"), ("שלום עולם", "rtl"), ("你好 世界", "ltr")],
    ids=["arabic", "hebrew", "chinese"],
)
async def test_texts_run_in_their_own_direction(
    browser: Any, filling: Path, serving: MakeServer, text: str, direction: str
) -> None:
    """What is typed, and its tokens; arrow keys go along."""
    async with (
        serving(models=filling, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground) as page,
    ):
        await page.get_by_role("tab", name="Attention").click()
        box = page.get_by_label("Text", exact=True).last
        await box.fill(text)
        typed = await box.evaluate("box => getComputedStyle(box).direction")
        await page.get_by_role("button", name="Look inside").click()
        await page.locator(".attention canvas").first.wait_for()
        tokens = page.get_by_role("group", name="Source tokens")
        shown = await tokens.evaluate("group => getComputedStyle(group).direction")
        await tokens.get_by_role("button").first.focus()
        await page.keyboard.press("ArrowLeft" if direction == "rtl" else "ArrowRight")
        second = await tokens.get_by_role("button").nth(1).get_attribute("class")
        await shoot(page, f"attention-{direction}-{text[0]}")
    assert (typed, shown) == (direction, direction)
    assert "chosen" in str(second)


async def test_masks_are_filled(browser: Any, filling: Path, serving: MakeServer) -> None:
    """The button writes the model's own mask; candidates come with their scores."""
    async with (
        serving(models=filling, playground=True, playground_port=0) as running,
        visiting(browser, running.ports.playground) as page,
    ):
        await page.get_by_label("Text", exact=True).fill("the old ")
        await page.get_by_role("button", name="Insert [MASK]").click()
        await page.get_by_role("button", name="Fill", exact=True).click()
        await page.get_by_role("heading", name="Mask 1").wait_for()
        rows = await page.locator(".bar").count()
        await shoot(page, "masks-light")
    assert rows == 5
