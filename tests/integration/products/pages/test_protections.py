"""What keeps visitors of hosted pages from doing harm: limits, least time, room for the workspace's own reads."""

import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from products.pages import support_form
from spine.kernel.settings import HttpSettings
from tests.api import Api, serve
from tests.hosted_pages import new_form, read_form, visible_text, visitor

TYPED = {"name": "Meera", "email": "meera@example.com", "subject": "S", "message": "M", "topic": "billing"}
PROXIED = "127.0.0.1/32"


@pytest.fixture(scope="module")
def strict(module_database: str, module_redis_url: str) -> Iterator[Api]:
    """An API with low limits, behind a trusted proxy that names its clients."""
    with serve(
        module_database,
        module_redis_url,
        SPINE_TRUSTED_PROXIES=PROXIED,
        SPINE_PAGE_VIEWS_PER_MINUTE="5",
        SPINE_PAGE_SUBMISSIONS_PER_HOUR="3",
        SPINE_PAGE_SUBMISSIONS_PER_SLUG="4",
        SPINE_PAGE_MIN_FILL_S="0",
    ) as running:
        yield running


@pytest.fixture
def slug(strict: Api) -> str:
    """A form of one test."""
    made = f"help-{secrets.token_hex(6)}"
    with strict.sign_up().test.client() as http:
        new_form(http, made)
    return made


@pytest.fixture
def anybody(strict: Api) -> Iterator[httpx.Client]:
    """A visitor with an address of its own."""
    with visitor(strict.url) as made:
        made.headers["X-Forwarded-For"] = f"2001:db8:{secrets.token_hex(2)}:{secrets.token_hex(2)}::1"
        yield made


def is_too_many(answer: httpx.Response) -> bool:
    """True for a page that says 429 and when to go on."""
    return (
        answer.status_code == 429
        and int(answer.headers["retry-after"]) >= 1
        and answer.headers["content-type"] == "text/html; charset=utf-8"
    )


def test_an_address_views_so_many_pages(slug: str, anybody: httpx.Client) -> None:
    """Views of one address are limited, whichever page or link they are of; other addresses go on."""
    answers = [
        anybody.get(path) for path in (f"/f/{slug}", "/f/never-was", "/b/never-was", f"/f/{slug}/x", f"/f/{slug}")
    ]
    assert [answer.status_code for answer in answers] == [200, 404, 404, 404, 200]
    assert is_too_many(anybody.get(f"/f/{slug}"))
    assert anybody.get(f"/f/{slug}", headers={"X-Forwarded-For": "198.51.100.7"}).status_code == 200


def test_an_address_submits_so_often(slug: str, anybody: httpx.Client) -> None:
    """Submissions of one address are limited, refused ones included, before their body is read."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
    answers = [anybody.post(f"/f/{slug}", data=data) for data in ({"x": "1"}, filled | {"email": "x"}, filled)]
    assert [answer.status_code for answer in answers] == [403, 422, 303]
    assert is_too_many(anybody.post(f"/f/{slug}", data=filled))


def test_a_page_is_submitted_so_often(slug: str, anybody: httpx.Client) -> None:
    """One page takes so many submissions from all addresses; what its checks refuse does not count, and nothing typed is lost."""
    statuses = []
    for number in range(6):
        anybody.headers["X-Forwarded-For"] = f"198.51.100.{100 + number}"
        filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
        assert anybody.post(f"/f/{slug}", data=filled | {"email": "x"}).status_code == 422
        answer = anybody.post(f"/f/{slug}", data=filled)
        statuses.append(answer.status_code)
    assert statuses == [303] * 4 + [429] * 2
    assert is_too_many(answer)
    assert read_form(answer).fields["message"] == "M"
    assert read_form(answer).fields["idempotency_key"] == filled["idempotency_key"]


def test_a_backlog_is_told_and_nothing_typed_is_lost(
    slug: str, anybody: httpx.Client, strict: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While too many events wait, a submission gets 429 with its page, and the same page is taken afterwards."""
    filled = read_form(anybody.get(f"/f/{slug}")).filled(**TYPED)
    backpressure = strict.app.state.platform.backpressure
    with monkeypatch.context() as patched:
        patched.setattr(backpressure, "_max_total", -1)
        answer = anybody.post(f"/f/{slug}", data=filled)
    assert is_too_many(answer)
    again = read_form(answer)
    assert again.fields["idempotency_key"] == filled["idempotency_key"]
    assert anybody.post(f"/f/{slug}", data=again.fields).status_code == 303


def test_nothing_is_carried_out_before_the_least_time(module_database: str, module_redis_url: str) -> None:
    """A submission that comes at once is carried out when the page has been open for SPINE_PAGE_MIN_FILL_S, and not before."""
    slug = f"slow-{secrets.token_hex(6)}"
    with (
        serve(module_database, module_redis_url, SPINE_PAGE_MIN_FILL_S="2") as slow,
        visitor(slow.url) as anybody,
        slow.sign_up().test.client() as http,
    ):
        new_form(http, slug)
        form = read_form(anybody.get(f"/f/{slug}"))
        assert anybody.post(f"/f/{slug}", data=form.filled(**TYPED)).status_code == 303
        [ticket] = http.get("/tickets/v1/tickets").json()["data"]
    issued_at = datetime.fromtimestamp(int(form.fields["idempotency_key"].partition(".")[0]) / 1000, UTC)
    assert datetime.fromisoformat(ticket["created_at"]) - issued_at >= timedelta(seconds=1.9)


def test_pages_leave_room_for_reads_of_the_workspace(strict: Api) -> None:
    """Visitors of a workspace's pages hold at most half of its places for reads."""
    platform = strict.app.state.platform
    assert platform.page_reads._max_reads * 2 == HttpSettings().max_reads


def test_errors_of_the_database_are_pages(slug: str, anybody: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the database is out of reach, a visitor reads a page with 503 that says to try again."""

    async def fail(*arguments: object) -> None:
        raise OSError("the connection is lost")

    monkeypatch.setattr(support_form, "find_form", fail)
    answer = anybody.get(f"/f/{slug}")
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert "try again" in visible_text(answer).lower()


@pytest.mark.parametrize("path", ["/pages/page.css", "/pages/frame.js", "/embed.js"])
def test_files_are_cached_and_typed(path: str, anybody: httpx.Client) -> None:
    """Style and scripts are cached, have their type, and may be loaded by other sites."""
    answer = anybody.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"].partition(";")[0] in ("text/css", "text/javascript")
    assert "max-age=" in answer.headers["cache-control"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
