"""Opens pages in headless Chromium, and checks that they cause no error and send no request to another server."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Error, Page, Request, expect, sync_playwright

_PATIENCE_MS = 30_000
_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Start the system's Chromium, or Playwright's. If there is neither, the test is skipped."""
    # The timeout is long, since the machine may be busy.
    expect.set_options(timeout=_PATIENCE_MS)
    found = next((path for path in map(shutil.which, _NAMES) if path), None)
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=found)
        except Error as error:
            if found or "Executable doesn't exist" not in error.message:
                raise
            pytest.skip("there is no Chromium: `apt-get install chromium`, or `playwright install chromium`")
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def opened(browser: Browser, url: str, *, allowed: Sequence[str] = (), **options: Any) -> Iterator[Page]:
    """Open a page at `url` in a context of its own.

    At the end, the test fails if the page caused an error, logged a message that contains none of `allowed`, or sent a
    request to another origin.
    """
    said: list[str] = []
    asked: list[str] = []
    context = browser.new_context(**{"viewport": {"width": 1200, "height": 800}, "service_workers": "block", **options})
    page = context.new_page()
    page.set_default_timeout(_PATIENCE_MS)

    def log(message: ConsoleMessage) -> None:
        said.append(message.text)

    def note(request: Request) -> None:
        asked.append(request.url)

    def log_error(error: Error) -> None:
        said.append(str(error))

    page.on("console", log)
    page.on("pageerror", log_error)

    def forget(request: Request) -> None:
        # The content security policy blocked the request, which the browser logs.
        if request.failure == "csp":
            asked.remove(request.url)

    page.on("request", note)
    page.on("requestfailed", forget)
    try:
        page.goto(url)
        yield page
    finally:
        context.close()
    unexpected = [each for each in said if not any(text in each for text in allowed)]
    assert unexpected == []
    assert asked
    strange = [each for each in asked if not each.startswith((url, "blob:", "data:"))]
    assert strange == []


def fits(page: Page) -> bool:
    """Whether the page is not wider than the window, so that it need not be scrolled sideways."""
    return page.evaluate("document.documentElement.scrollWidth <= innerWidth")
