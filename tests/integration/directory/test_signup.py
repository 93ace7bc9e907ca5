"""Signing up: one call makes an organisation with both workspaces and a key to each."""

from tests.api import Api, client, serve


def test_one_call_without_a_key_gives_both_keys(api: Api) -> None:
    """Nobody and nothing but a name and an email is needed for a key that works at once (P-03, X18)."""
    with client(api.url, None) as anybody:
        answer = anybody.post("/v1/signup", json={"name": "Acme", "email": "ann@example.com"})
    assert answer.status_code == 201
    body = answer.json()
    assert body["organisation"]["id"].startswith("org_")
    for env in ("test", "live"):
        assert body[env]["api_key"].startswith(f"sk_{env}_")
        with client(api.url, body[env]["api_key"]) as caller:
            made = caller.post("/v1/events", json={"type": "order.paid", "data": {}})
        assert made.status_code == 201
        assert made.json()["env"] == env
        assert made.json()["workspace_id"] == body[env]["workspace_id"]


def test_closed_signup_is_refused_and_makes_nothing(api: Api) -> None:
    """SPINE_SIGNUP=closed answers 403, however often it is asked."""
    with serve(api.database_url, api.redis_url, SPINE_SIGNUP="closed") as closed, client(closed.url, None) as anybody:
        answer = anybody.post("/v1/signup", json={"name": "Acme", "email": "ann@example.com"})
    assert (answer.status_code, answer.json()["code"]) == (403, "signup_closed")


def test_a_signup_that_does_not_fit_names_the_field(api: Api) -> None:
    """A broken email or a missing name is told by its path, as everywhere."""
    with client(api.url, None) as anybody:
        answer = anybody.post("/v1/signup", json={"email": "nobody"})
    assert answer.status_code == 422
    assert {error["param"] for error in answer.json()["errors"]} == {"name", "email"}
