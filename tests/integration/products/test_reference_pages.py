"""The reference as pages: served by the API, without anything from elsewhere."""

import gzip
import hashlib
import json
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from products.catalogue import PRODUCTS
from products.reference_pages import ASSETS, VIEWER, document_path
from tests.api import Api, Organisation
from tests.browser import launched, needs_browser, opened

SHADOW = "document.querySelector('rapi-doc').shadowRoot"
DESK = {"width": 1280, "height": 900}
NAMES = ["spine", *PRODUCTS]


def get(url: str, headers: dict[str, str] | None = None) -> httpx.Response:
    """Read a URL. The first page waits until the documents are built, which takes its time on a busy machine."""
    return httpx.get(url, headers=headers, timeout=60, trust_env=False)


def test_the_vendored_files_are_those_of_the_manifest() -> None:
    """Each file that others wrote has its version in its name, its licence beside it, and the listed checksum."""
    manifest = json.loads((ASSETS / "manifest.json").read_text())
    assert VIEWER in manifest
    for name, entry in manifest.items():
        assert hashlib.sha256((ASSETS / name).read_bytes()).hexdigest() == entry["sha256"]
        assert entry["version"] in name
        assert entry["licence"] in (ASSETS / entry["licence_file"]).read_text()
    own = {"manifest.json", "reference.css", *manifest, *(entry["licence_file"] for entry in manifest.values())}
    assert {path.name for path in ASSETS.iterdir()} == own


def test_the_index_leads_to_every_product(api: Api) -> None:
    """/docs needs no key and links to the page and to the document of each product."""
    answer = get(f"{api.url}/docs")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    for name in NAMES:
        for link in (f"/docs/{name}", document_path(name)):
            assert f'href="{link}"' in answer.text
            assert get(f"{api.url}{link}").status_code == 200


@pytest.mark.parametrize("name", NAMES)
def test_a_page_names_no_other_host(name: str, api: Api) -> None:
    """A page refers to files of this installation only, and its policy allows no others."""
    answer = get(f"{api.url}/docs/{name}")
    assert answer.status_code == 200
    assert f'spec-url="{document_path(name)}"' in answer.text
    assert not re.search(r"(?:https?:)?//\w", answer.text)
    policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == policy["connect-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "http" not in answer.headers["content-security-policy"]
    for path in re.findall(r'(?:src|href)="(/docs/assets/[^"]+)"', answer.text):
        assert get(f"{api.url}{path}").status_code == 200


def test_what_has_not_changed_is_not_sent_again(api: Api) -> None:
    """Pages are revalidated by their ETag. Files have a URL of their content and are kept for ever, packed for who asks."""
    page = get(f"{api.url}/docs/crm")
    assert page.headers["cache-control"] == "no-cache"
    again = get(f"{api.url}/docs/crm", headers={"If-None-Match": f'"x", W/{page.headers["etag"]}'})
    assert (again.status_code, again.content) == (304, b"")
    script = re.search(r'src="([^"]+)"', page.text)
    assert script is not None
    packed = get(f"{api.url}{script[1]}", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert packed.content == (ASSETS / VIEWER).read_bytes()
    assert int(packed.headers["content-length"]) == len(gzip.compress((ASSETS / VIEWER).read_bytes(), mtime=0))
    plain = get(f"{api.url}{script[1]}", headers={"Accept-Encoding": "identity"})
    assert plain.content == packed.content
    assert plain.headers["etag"] != packed.headers["etag"]


def test_other_names_are_not_found(api: Api) -> None:
    """There is no page of an unknown product, and no file but the listed ones in the listed version."""
    for path in ("nothing", "assets/manifest.json", "assets/..%2Fapp.py", "assets/reference.css~0", "assets/"):
        answer = get(f"{api.url}/docs/{path}")
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), path


@pytest.fixture(scope="module")
def browser(api: Api) -> Iterator[Browser]:  # it starts after the API, and ends before it
    """A browser for the tests of this module."""
    with launched() as made:
        yield made


def render(page: Page, url: str) -> None:
    """Open a page and wait until it shows operations."""
    page.goto(url)
    page.wait_for_selector(".section-endpoint, .observe-me", state="attached", timeout=60_000)


@needs_browser
def test_a_page_shows_its_document_in_a_real_browser(api: Api, browser: Browser) -> None:
    """Every operation and event of a product is shown; nothing is asked of another host, nothing forbidden is tried."""
    document = api.app.state.documents["crm"]()
    with opened(browser, viewport=DESK) as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        render(page, f"{api.url}/docs/crm")
        text = page.evaluate(f"{SHADOW}.textContent")
        for item in [*document["paths"].values(), *document["webhooks"].values()]:
            for operation in item.values():
                assert operation["summary"] in text, operation["operationId"]
        assert [url for url in requests if not url.startswith((f"{api.url}/", "data:"))] == []


@needs_browser
def test_a_page_is_usable_on_a_phone_and_by_keyboard(api: Api, browser: Browser) -> None:
    """On a narrow screen nothing sticks out; from the index the page of a product is reached with Tab and Enter."""
    with opened(browser, viewport={"width": 360, "height": 740}) as page:
        for path in ("/docs", "/docs/billing"):
            page.goto(f"{api.url}{path}")
            if path != "/docs":
                render(page, f"{api.url}{path}")
            assert page.evaluate("document.documentElement.scrollWidth") <= 360
        page.goto(f"{api.url}/docs")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.getAttribute('href')") == "/docs/spine"
        for key in ("Tab", "Tab", "Enter"):
            page.keyboard.press(key)
        page.wait_for_selector("rapi-doc", state="attached")
        assert page.evaluate("document.querySelector('[aria-current]') !== null")


@needs_browser
def test_a_call_can_be_tried_from_the_page(api: Api, org: Organisation, browser: Browser) -> None:
    """The page calls this installation with the reader's key, and shows the response."""
    with opened(browser, viewport=DESK) as page:
        render(page, f"{api.url}/docs/crm")
        assert page.evaluate(f"document.querySelector('rapi-doc').setApiKey('bearer', '{org.test.key}') !== undefined")
        request = page.locator("[id='get-/crm/v1/contacts'] api-request")
        with page.expect_request(lambda request: request.url.startswith(f"{api.url}/crm/v1/contacts")):
            request.locator("[part~=btn-try]").dispatch_event("click")
        expect(request).to_contain_text("has_more", timeout=20_000)
