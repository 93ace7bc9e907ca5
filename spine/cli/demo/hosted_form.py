"""Fill in a hosted page as a browser without JavaScript does: read the form, send its hidden fields back with what was typed."""

from html.parser import HTMLParser
from urllib.parse import urljoin

import httpx

from spine.cli.errors import Failure


class _FormReader(HTMLParser):
    """Collects the fields with their values, the first choice of each group of radio buttons, and the text that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.fields: dict[str, str] = {}
        self.text: list[str] = []
        self._silent = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Read an input."""
        values = {name: value or "" for name, value in attrs}
        if tag in ("script", "style"):
            self._silent += 1
        if tag == "input" and values.get("name"):
            self.fields.setdefault(values["name"], values.get("value", ""))

    def handle_endtag(self, tag: str) -> None:
        """Leave a part that is not shown."""
        if tag in ("script", "style"):
            self._silent -= 1

    def handle_data(self, data: str) -> None:
        """Keep a text that the page shows."""
        if not self._silent and data.strip():
            self.text.append(" ".join(data.split()))


def _read(page: httpx.Response) -> _FormReader:
    reader = _FormReader()
    reader.feed(page.text)
    return reader


def read_form(page: str) -> dict[str, str]:
    """Return the fields of the page's form with their values, of radio buttons the first choice."""
    reader = _FormReader()
    reader.feed(page)
    return reader.fields


def submit(browser: httpx.Client, url: str, **typed: str) -> str:
    """Fill in the form at this address and send it. Returns the text of the page that follows. Raises Failure."""
    page = browser.get(url)
    if page.status_code != httpx.codes.OK:
        raise Failure(f"the page {url} answered {page.status_code}")
    fields = _read(page).fields | typed
    origin = urljoin(url, "/").rstrip("/")
    answer = browser.post(url, data=fields, headers={"Origin": origin})
    if answer.status_code != httpx.codes.SEE_OTHER:
        raise Failure(f"the page {url} answered {answer.status_code}: {' '.join(_read(answer).text)[:500]}")
    shown = browser.get(urljoin(url, answer.headers["Location"]))
    return " ".join(_read(shown).text)
