"""A real browser without a window, for tests of pages."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
WITHOUT_GRAPHICS_CARD = ["--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
IN_A_CONTAINER = ["--disable-dev-shm-usage"]  # its shared memory may be small


@contextmanager
def open_browser() -> Iterator:
    """Chromium: the machine's or Playwright's own. The test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install playwright")
    with sync_api.sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(
                executable_path=next(filter(None, map(shutil.which, NAMES)), None),
                args=[*WITHOUT_GRAPHICS_CARD, *IN_A_CONTAINER],
                timeout=60_000,
            )
        except sync_api.Error as error:
            pytest.skip(f"no Chromium: playwright install chromium ({str(error).splitlines()[0]})")
        try:
            yield browser
        finally:
            browser.close()
