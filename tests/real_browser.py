"""A headless Chromium of Debian's, driven by Playwright, which ``make programs`` fetches."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from requirement import PROGRAMS, find_playwright

CHROMIUM = "chromium-headless-shell"
SCREENSHOTS = Path(__file__).parent / "screenshots"
"""Where tests leave what they have seen, for people to look at."""


@contextlib.asynccontextmanager
async def launched() -> AsyncIterator[Any]:
    """A browser of Playwright's."""
    if (folder := find_playwright()) is not None and folder not in sys.path:
        sys.path.append(folder)
    from playwright.async_api import async_playwright

    path = shutil.which(CHROMIUM)
    # Its sandbox is not for root, who runs these tests where they run by themselves.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path, args=arguments, env=_environment()
        )
        try:
            yield browser
        finally:
            await browser.close()


@contextlib.asynccontextmanager
async def visiting(browser: Any, port: int | None, **options: Any) -> AsyncIterator[Any]:
    """The page of a playground in a window of its own; options are those of the window.

    At the end nothing may have gone elsewhere, and the page must not have complained.
    """
    origin = f"http://127.0.0.1:{port}"
    window = await browser.new_context(**({"viewport": {"width": 1240, "height": 900}} | options))
    page = await window.new_page()
    requests: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda message: complaints.append(message.text))
    try:
        await page.goto(f"{origin}/")
        yield page
        assert [url for url in requests if not url.startswith((f"{origin}/", "data:"))] == []
        # Chromium itself reports answers that are errors.
        assert [one for one in complaints if not one.startswith("Failed to load resource")] == []
    finally:
        await window.close()


async def shoot(page: Any, name: str) -> None:
    """Keeps a picture of the whole page."""
    SCREENSHOTS.mkdir(exist_ok=True)
    await page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


def _environment() -> dict[str, str]:
    """With the fonts that came with the browser, where the machine has none."""
    has_fonts = Path("/etc/fonts/fonts.conf").exists()
    return os.environ | ({} if has_fonts else {"FONTCONFIG_SYSROOT": str(PROGRAMS / "debian")})
