"""A real headless Chromium (Debian's package `chromium`) looking at a page, and all that it complains about."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")

PHONE = {"width": 390, "height": 844}
DESK = {"width": 1180, "height": 900}


@dataclass
class Seen:
    """What the page did beside being shown."""

    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def looking_at(url: str, viewport: dict = DESK, scheme: str = "light") -> Iterator[tuple]:
    """Yield playwright's page and a `Seen` that is filled as long as it lives."""
    from playwright.sync_api import sync_playwright

    seen = Seen()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport=viewport, color_scheme=scheme)
        page.on("console", lambda message: seen.complaints.append(message.text))
        page.on("pageerror", lambda error: seen.complaints.append(str(error)))
        page.on("request", lambda request: seen.requests.append(request.url))
        page.goto(url)
        yield page, seen
        browser.close()
