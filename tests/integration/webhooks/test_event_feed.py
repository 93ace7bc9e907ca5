"""The event feed: where a traversal starts, continues and what a filter selects."""

import httpx


def test_a_feed_continues_from_its_last_page(http: httpx.Client) -> None:
    """A page with rows has a `next_cursor`, also the last one; an empty page has none (wire.md)."""
    empty = http.get("/v1/events").json()
    assert empty == {"data": [], "has_more": False, "next_cursor": None}
    first = http.post("/v1/events", json={"type": "order.paid", "data": {"n": 1}}).json()
    page = http.get("/v1/events").json()
    assert [row["id"] for row in page["data"]] == [first["id"]]
    assert page["next_cursor"]
    assert http.get("/v1/events", params={"cursor": page["next_cursor"]}).json()["data"] == []
    second = http.post("/v1/events", json={"type": "order.paid", "data": {"n": 2}}).json()
    later = http.get("/v1/events", params={"cursor": page["next_cursor"]}).json()
    assert [row["id"] for row in later["data"]] == [second["id"]]


def test_a_feed_can_start_now(http: httpx.Client) -> None:
    """`start=now` returns no earlier events and a cursor for the later ones."""
    http.post("/v1/events", json={"type": "order.paid", "data": {}})
    page = http.get("/v1/events", params={"start": "now"}).json()
    assert page["data"] == []
    after = http.post("/v1/events", json={"type": "order.paid", "data": {}}).json()
    found = http.get("/v1/events", params={"cursor": page["next_cursor"]}).json()
    assert [row["id"] for row in found["data"]] == [after["id"]]


def test_a_filtered_feed_is_complete(http: httpx.Client) -> None:
    """Filters take patterns, as endpoints do, and the cursor continues under the same filter."""
    for type in ("order.paid", "order.sent", "stock.low", "order.line.added"):
        http.post("/v1/events", json={"type": type, "data": {}})
    some = http.get("/v1/events", params={"type": ["order.*"], "limit": 2}).json()
    rest = http.get("/v1/events", params={"type": ["order.*"], "cursor": some["next_cursor"]}).json()
    assert [row["type"] for row in some["data"] + rest["data"]] == ["order.paid", "order.sent", "order.line.added"]
    both = http.get("/v1/events", params={"type": ["stock.low", "order.sent"]}).json()
    assert [row["type"] for row in both["data"]] == ["order.sent", "stock.low"]
