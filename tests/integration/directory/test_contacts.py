"""Contacts: one address book, whose every change is told field by field (C-11, C-12, X22)."""

import asyncio
import itertools
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api import Api, Organisation
from tests.message_engine import NotificationsClient

FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["Meera", "Ravi", "Asha"]),
        "phone": st.sampled_from([None, "+919876543210", "098765 43211"]),
        "email": st.sampled_from([None, "m@example.com", "M@Example.com"]),
        "fields": st.dictionaries(st.sampled_from(["city", "size"]), st.sampled_from([1, "x", None, [1]]), max_size=2),
        "metadata": st.dictionaries(st.just("k"), st.sampled_from(["1", "2"])),
    },
)


@pytest.fixture
def post(http: httpx.Client) -> NotificationsClient:
    """The test workspace."""
    return NotificationsClient(http)


def test_a_number_is_answered_in_one_form(post: NotificationsClient) -> None:
    """`phone` in any form, `phone_e164` in one; the sandbox's numbers too."""
    made = post.post("/crm/v1/contacts", {"name": "Meera", "phone": "098765 43210", "email": "Meera@Example.com"})
    assert (made["phone_e164"], made["email"], made["version"]) == ("+919876543210", "meera@example.com", 1)
    assert made["id"].startswith("ctc_")
    sandbox = post.post("/crm/v1/contacts", {"name": "Nobody", "phone": "+91 0000 000 123"})
    assert sandbox["phone_e164"] == "+910000000123"
    assert post.get("/crm/v1/contacts?phone=9876543210")["data"] == [made]


def test_a_duplicate_is_refused_with_the_id_of_the_first(post: NotificationsClient, http: httpx.Client) -> None:
    """409 `contact_exists` names the contact that is there (wire.md, CRM)."""
    first = post.contact("+919876543210")
    again = http.post("/crm/v1/contacts", json={"name": "Other", "phone": "98765 43210"})
    assert (again.status_code, again.json()["code"], again.json()["existing_id"]) == (409, "contact_exists", first)
    other = post.contact("+919876543211", "o@example.com")
    clash = http.patch(f"/crm/v1/contacts/{first}", json={"email": "O@example.com"})
    assert (clash.status_code, clash.json()["existing_id"]) == (409, other)


def test_of_ten_at_once_one_wins(org: Organisation) -> None:
    """Ten concurrent creates of one number make one contact, and nine hear its id (C-01)."""

    def create(_: int) -> httpx.Response:
        with org.test.client() as client:
            return client.post("/crm/v1/contacts", json={"name": "Meera", "phone": "+919876543210"})

    with ThreadPoolExecutor(10) as pool:
        answers = list(pool.map(create, range(10)))
    made = [answer.json()["id"] for answer in answers if answer.status_code == 201]
    assert len(made) == 1
    assert [answer.json()["existing_id"] for answer in answers if answer.status_code == 409] == made * 9


def test_an_owner_must_exist(post: NotificationsClient, http: httpx.Client) -> None:
    """A reference to nobody is 422, at create and at change."""
    answer = http.post("/crm/v1/contacts", json={"name": "M", "owner_id": "usr_01J9XAAAAAAAAAAAAAAAAAAAAA"})
    assert (answer.status_code, answer.json()["code"], answer.json()["param"]) == (
        422,
        "reference_not_found",
        "owner_id",
    )
    owner = post.post("/v1/users", {"name": "Ann", "email": "ann@example.com"})["id"]
    assert post.post("/crm/v1/contacts", {"name": "M", "owner_id": owner})["owner_id"] == owner


def test_a_stale_version_is_refused(post: NotificationsClient, http: httpx.Client) -> None:
    """If-Match holds the version last seen."""
    id = post.contact()
    changed = http.patch(f"/crm/v1/contacts/{id}", json={"name": "A"}, headers={"If-Match": '"1"'})
    assert (changed.status_code, changed.json()["version"]) == (200, 2)
    stale = http.patch(f"/crm/v1/contacts/{id}", json={"name": "B"}, headers={"If-Match": '"1"'})
    assert (stale.status_code, stale.json()["code"]) == (409, "version_conflict")


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(FIELDS, max_size=5))
def test_diffs_add_up_to_the_row(api: Api, changes: list[dict[str, Any]]) -> None:
    """Applying every event's `changes` in turn gives the contact; a PATCH that changes nothing tells nothing (C-11)."""
    with api.sign_up().test.client() as client:
        post = NotificationsClient(client)
        row = post.post("/crm/v1/contacts", {"name": "Meera"})
        id = row["id"]
        versions = [
            row,
            *(post.post(f"/crm/v1/contacts/{id}", change, status=200, method="PATCH") for change in changes),
        ]
        told = post.events("contact.updated")
        assert len(told) == sum(before != after for before, after in itertools.pairwise(versions))
        for event in told:
            for one in event["data"]["changes"]:
                assert row[one["field"]] == one["old"] != one["new"]
                row[one["field"]] = one["new"]
        last = post.get(f"/crm/v1/contacts/{id}")
        assert {k: row[k] for k in row if k not in {"version", "updated_at"}} == {
            k: last[k] for k in last if k not in {"version", "updated_at"}
        }
        kinds = [entry["kind"] for entry in post.get(f"/crm/v1/contacts/{id}/timeline")["data"]]
        assert kinds == ["contact.created", *["contact.updated"] * len(told)]


@pytest.mark.parametrize(("old", "new"), [(1, True), (True, 1), (1, 1.0), ({"a": [1]}, {"a": [True]})])
def test_json_is_not_compared_as_python_does(post: NotificationsClient, old: Any, new: Any) -> None:
    """1, true and 1.0 are three values: a PATCH from one to another changes the contact and is told."""
    made = post.post("/crm/v1/contacts", {"name": "Meera", "fields": {"k": old}})
    path = f"/crm/v1/contacts/{made['id']}"
    post.post(path, {"fields": {"k": new}}, status=200, method="PATCH")
    assert repr(post.get(path)["fields"]["k"]) == repr(new)
    (told,) = post.events("contact.updated")
    assert repr(told["data"]["changes"]) == repr([{"field": "fields", "old": {"k": old}, "new": {"k": new}}])
    again = post.post(path, {"fields": {"k": new}}, status=200, method="PATCH")
    assert again["version"] == 2


def test_the_timeline_cannot_be_rewritten(
    post: NotificationsClient, api: Api, http: httpx.Client, org: Organisation
) -> None:
    """No grant and a trigger keep it append-only, and no route edits it (C-12). Workers may delete past the retention only."""
    id = post.contact()

    async def tries() -> list[str]:
        refused = []
        for role in ("spine_app", "spine_worker", None):
            connection = await asyncpg.connect(api.database_url)
            try:
                if role is not None:
                    await connection.execute(f"SET ROLE {role}")
                await connection.execute("SELECT set_config('app.ws', $1, false)", org.test.workspace_id)
                for statement in ("UPDATE spine.timeline_entries SET kind = 'x'", "DELETE FROM spine.timeline_entries"):
                    try:
                        await connection.execute(statement)
                    except asyncpg.InsufficientPrivilegeError as error:
                        refused.append(str(error))
            finally:
                await connection.close()
        return refused

    refused = asyncio.run(tries())
    assert len(refused) == 6
    assert sum("append-only" in text for text in refused) == 3
    for method in ("PATCH", "DELETE", "POST", "PUT"):
        assert http.request(method, f"/crm/v1/contacts/{id}/timeline", json={}).status_code == 405


def test_others_see_nothing(org: Organisation, api: Api) -> None:
    """A foreign contact is not there, for reading, changing, its timeline and its uniqueness (P-02, P-15)."""
    with org.test.client() as mine, org.live.client() as live, api.sign_up().test.client() as stranger:
        id = NotificationsClient(mine).contact("+919876543210")
        for other in (live, stranger):
            assert other.get(f"/crm/v1/contacts/{id}").status_code == 404
            assert other.get(f"/crm/v1/contacts/{id}/timeline").status_code == 404
            assert other.patch(f"/crm/v1/contacts/{id}", json={"name": "x"}).status_code == 404
            NotificationsClient(other).contact("+919876543210")
