"""The pages in a real Chromium: by keyboard, without JavaScript, on a small screen, embedded. Skipped where none is installed."""

import http.server
import re
import secrets
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.api import Api
from tests.browser import launched, needs_browser, opened
from tests.hosted_pages import new_form, new_salon

pytestmark = needs_browser


@pytest.fixture(scope="module")
def browser(api: Api) -> Iterator[Browser]:  # it starts after the API, and ends before it
    """A browser for the tests of this module."""
    with launched() as made:
        yield made


@pytest.fixture
def slug() -> str:
    """A slug of one test."""
    return f"page-{secrets.token_hex(6)}"


def count(client: httpx.Client, path: str) -> int:
    """How many there are in a list."""
    return len(client.get(path).json()["data"])


def fill_in_request(page: Any) -> None:
    """Type a support request."""
    page.get_by_label("Your name").fill("Meera Iyer")
    page.get_by_label("E-mail address").fill("meera@example.com")
    page.get_by_label("Topic").select_option("billing")
    page.get_by_label("Subject").fill("Invoice twice")
    page.get_by_label("Message").fill("Please look.")


def small_targets(page: Page) -> list[str]:
    """Return what can be activated and is lower or narrower than 44 CSS pixels."""
    found: list[str] = page.evaluate(
        """() => [...document.querySelectorAll("a, button, summary, select, textarea, label.slot, .field input")]
            .filter((one) => !one.closest(".trap, .errors") && one.checkVisibility())
            .map((one) => [one.outerHTML.slice(0, 80), one.getBoundingClientRect()])
            .filter(([, box]) => box.height < 44 || box.width < 44)
            .map(([text, box]) => `${text} ${box.width}x${box.height}`)"""
    )
    return found


def overflow(page: Page) -> int:
    """Return by how many pixels the page is wider than the screen."""
    found: int = page.evaluate("() => document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_support_request_on_a_phone(
    scripts: bool, browser: Browser, api: Api, http: httpx.Client, slug: str, tmp_path: Path
) -> None:
    """On a screen of 320 pixels, with and without JavaScript, a request is sent, and nothing is too wide or too small to touch."""
    new_form(http, slug)
    with opened(browser, java_script_enabled=scripts) as page:
        page.goto(f"{api.url}/f/{slug}")
        page.screenshot(path=tmp_path / "form.png", full_page=True)
        fill_in_request(page)
        if scripts:
            assert overflow(page) == 0
            assert small_targets(page) == []
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("heading", name="Your request was received")).to_be_visible()
        expect(page.get_by_text("Bob Billing")).to_be_visible()
        page.screenshot(path=tmp_path / "ticket.png", full_page=True)
    assert count(http, "/tickets/v1/tickets") == 1


@pytest.mark.parametrize("scripts", [True, False], ids=["scripts", "no scripts"])
def test_a_booking_on_a_phone(
    scripts: bool, browser: Browser, api: Api, http: httpx.Client, slug: str, tmp_path: Path
) -> None:
    """With and without JavaScript a time is chosen and booked, and its appointment cancelled again."""
    salon = new_salon(http, slug, slots=14)
    with opened(browser, java_script_enabled=scripts, color_scheme="dark" if scripts else "light") as page:
        page.goto(f"{api.url}/b/{slug}")
        page.locator(f'label:has(input[value="{salon.slot_ids[2]}"])').click()
        page.screenshot(path=tmp_path / "booking.png", full_page=True)
        page.get_by_label("Your name").fill("Ravi Rao")
        page.get_by_label("Phone number").fill("98765 43211")
        if scripts:
            assert overflow(page) == 0
            assert small_targets(page) == []
        page.get_by_role("button", name="Book", exact=True).click()
        expect(page.get_by_role("heading", name="Your appointment is booked")).to_be_visible()
        page.screenshot(path=tmp_path / "appointment.png", full_page=True)
        page.get_by_text("Cancel this appointment").click()
        if scripts:
            assert overflow(page) == 0
            assert small_targets(page) == []
        page.get_by_role("button", name="Cancel the appointment").click()
        expect(page.get_by_role("heading", name="Your appointment is cancelled")).to_be_visible()
    [made] = http.get("/calendar/v1/appointments").json()["data"]
    assert (made["slot_id"], made["status"]) == (salon.slot_ids[2], "cancelled")


def test_a_booking_by_keyboard_alone(browser: Browser, api: Api, http: httpx.Client, slug: str, tmp_path: Path) -> None:
    """Tab, arrows, letters and Enter are enough to book, in the order of the page, and the focus is always seen."""
    salon = new_salon(http, slug)
    with opened(browser) as page:
        page.goto(f"{api.url}/b/{slug}")
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.value") == salon.slot_ids[0]
        page.keyboard.press("ArrowDown")
        assert page.evaluate("getComputedStyle(document.activeElement.nextElementSibling).outlineStyle") == "solid"
        page.screenshot(path=tmp_path / "focus.png", full_page=True)
        for text in ("Ravi Rao", "", "98765 43211"):
            page.keyboard.press("Tab")
            assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
            page.keyboard.type(text)
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.textContent") == "Book"
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Your appointment is booked")).to_be_visible()
    assert http.get("/calendar/v1/appointments").json()["data"][0]["slot_id"] == salon.slot_ids[1]


def test_names_in_the_accessibility_tree(browser: Browser, api: Api, http: httpx.Client, slug: str) -> None:
    """Screen readers hear landmarks, headings, the day of each group of times, and the label of each field; the trap is not there."""
    salon = new_salon(http, slug)
    new_form(http, slug)
    with opened(browser) as page:
        page.goto(f"{api.url}/b/{slug}")
        tree = page.locator("html").aria_snapshot()
        for part in (
            "banner",
            "main",
            'heading "Book an appointment" [level=1]',
            'textbox "Your name"',
            'textbox "E-mail address"',
            'button "Book"',
        ):
            assert part in tree, part
        assert re.search(r'region "Choose a time"', tree)
        assert re.search(rf'group "\w+ {salon.starts[0].day} \w+ 20\d\d"', tree)
        assert 'radio "17:30"' in tree
        assert "Leave this field empty" not in tree
        page.goto(f"{api.url}/f/{slug}")
        tree = page.locator("html").aria_snapshot()
        for part in (
            'heading "How can we help?" [level=1]',
            'combobox "Topic"',
            'textbox "Subject"',
            'textbox "Message"',
            'button "Send"',
        ):
            assert part in tree, part
        assert page.evaluate("document.documentElement.lang") == "en"
        hints = page.evaluate(
            "document.getElementById('field-email').ariaDescribedByElements?.map((one) => one.textContent)"
        )
        assert hints is None or "enough" in hints[0]


def test_errors_take_the_focus_and_lead_to_their_fields(
    browser: Browser, api: Api, http: httpx.Client, slug: str, tmp_path: Path
) -> None:
    """After a refused submission the summary has the focus, and its links move to the fields, which keep what was typed."""
    new_form(http, slug)
    with opened(browser) as page:
        page.goto(f"{api.url}/f/{slug}")
        fill_in_request(page)
        page.get_by_label("Phone number").fill("12")
        page.get_by_role("button", name="Send").click()
        expect(page.locator("#errors")).to_be_focused()
        page.screenshot(path=tmp_path / "errors.png", full_page=True)
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.get_by_label("Phone number")).to_be_focused()
        expect(page.get_by_label("Subject")).to_have_value("Invoice twice")
        tree = page.locator("main").aria_snapshot()
        assert "alert" in tree
        page.get_by_label("Phone number").fill("")
        page.get_by_role("button", name="Send").click()
        expect(page.get_by_role("heading", name="Your request was received")).to_be_visible()


def test_a_double_click_is_one_ticket(browser: Browser, api: Api, http: httpx.Client, slug: str) -> None:
    """Who clicks twice has sent one request."""
    new_form(http, slug)
    with opened(browser) as page:
        page.goto(f"{api.url}/f/{slug}")
        fill_in_request(page)
        page.get_by_role("button", name="Send").dblclick()
        expect(page.get_by_role("heading", name="Your request was received")).to_be_visible()
    assert count(http, "/tickets/v1/tickets") == 1


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


@contextmanager
def other_site(directory: Path) -> Iterator[str]:
    """Serve a directory under another origin; yields the origin."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(directory)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def embed(directory: Path, api: Api, attribute: str) -> None:
    """Write a page of another site that embeds one of ours."""
    script = f'<script src="{api.url}/embed.js" {attribute} data-title="Help" async></script>'
    (directory / "index.html").write_text(f"<!doctype html><title>Shop</title><h1>Shop</h1>{script}")


def test_a_form_is_embedded_where_it_may_be(
    browser: Browser, api: Api, http: httpx.Client, slug: str, tmp_path: Path
) -> None:
    """The script embeds the form on a listed site: the frame grows with it, works, and takes its height from nobody else (T-13)."""
    embed(tmp_path, api, f'data-form="{slug}"')
    with other_site(tmp_path) as origin:
        new_form(http, slug, allowed_origins=[origin])
        with opened(browser, viewport={"width": 400, "height": 800}) as page:
            page.goto(f"{origin}/index.html")
            frame = page.frame_locator("iframe[title=Help]")
            fill_in_request(frame)
            page.wait_for_function("() => document.querySelector('iframe').style.height !== '640px'")
            height = page.evaluate("document.querySelector('iframe').style.height")
            page.evaluate("window.postMessage({type: 'spine:height', height: 5000}, '*')")
            page.evaluate("new Promise((done) => setTimeout(done, 100))")
            assert page.evaluate("document.querySelector('iframe').style.height") == height
            page.screenshot(path=tmp_path / "embedded.png", full_page=True)
            frame.get_by_role("button", name="Send").click()
            expect(frame.get_by_role("heading", name="Your request was received")).to_be_visible()
            page.wait_for_function(f"() => parseFloat(document.querySelector('iframe').style.height) < {height[:-2]}")
    assert count(http, "/tickets/v1/tickets") == 1


def test_a_form_is_not_embedded_elsewhere(
    browser: Browser, api: Api, http: httpx.Client, slug: str, tmp_path: Path
) -> None:
    """On a site that the form does not list the frame stays empty."""
    embed(tmp_path, api, f'data-form="{slug}"')
    with other_site(tmp_path) as origin:
        new_form(http, slug)
        with opened(browser) as page:
            with page.expect_console_message(lambda message: "frame-ancestors" in message.text):
                page.goto(f"{origin}/index.html")
                page.locator("iframe").scroll_into_view_if_needed()
            expect(page.frame_locator("iframe").get_by_label("Your name")).to_have_count(0)


def test_a_booking_page_is_embedded_anywhere(
    browser: Browser, api: Api, http: httpx.Client, slug: str, tmp_path: Path
) -> None:
    """Any site embeds a booking page, and a visitor books in the frame."""
    embed(tmp_path, api, f'data-page="{slug}"')
    new_salon(http, slug)
    with other_site(tmp_path) as origin, opened(browser) as page:
        page.goto(f"{origin}/index.html")
        frame = page.frame_locator("iframe")
        frame.locator("label.slot").first.click()
        frame.get_by_label("Your name").fill("Ravi Rao")
        frame.get_by_label("Phone number").fill("98765 43211")
        frame.get_by_role("button", name="Book", exact=True).click()
        expect(frame.get_by_role("heading", name="Your appointment is booked")).to_be_visible()
    assert count(http, "/calendar/v1/appointments") == 1
