"""Reports as a browser finds them."""

import contextlib
import html.parser
import json
import shutil

import pytest
from playwright.sync_api import sync_playwright


class Page(html.parser.HTMLParser):
    """What a browser finds in a report: its elements, and the data."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.inside, self.data = [], False, ""
        self.feed(text)
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.inside = dict(attributes).get("id") == "data"
        for name, value in attributes:
            assert name not in ("src", "href"), "the report loads nothing"
            assert not (name or "").startswith("on"), value

    def handle_data(self, data):
        if self.inside:
            self.data += data

    def handle_endtag(self, tag):
        self.inside = False


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
in_browser = pytest.mark.skipif(CHROMIUM is None, reason="needs chromium on the PATH")


@contextlib.contextmanager
def opened(report, width=1280, height=900):
    """A page of a browser that a report is open in; its keys and clicks are real ones, and no script may fail."""
    errors = []
    with sync_playwright() as tool, tool.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"]) as browser:
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("pageerror", lambda error: errors.append(error))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(report.resolve().as_uri())
        yield page
    assert not errors


def sideways(page):
    """By how many pixels a page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - innerWidth")
