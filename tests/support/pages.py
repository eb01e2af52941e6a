"""Reports as a browser finds them."""

import html.parser
import json


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
