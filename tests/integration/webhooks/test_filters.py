"""Filters of payloads: which events an endpoint gets, from the request that sets its filter to the receiver."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.json_containment import Steps, contains
from spine.webhooks.filters import STEPS_OF_A_BATCH, STEPS_OF_AN_EVENT
from tests.api import serve
from tests.delivery_engine import Engine
from tests.json_pieces import OBJECTS, value_and_part
from tests.receiver import Receiver

GOLD = {"pipeline": "sales", "customer": {"tier": "gold"}}
PATH = "/v1/webhook_endpoints"


@pytest.fixture
async def caller(engine: Engine) -> AsyncIterator[httpx.AsyncClient]:
    """The API on the engine's database; the engine looks after this caller's workspace."""
    with serve(engine.url, engine.redis_url) as api:
        account = api.sign_up().test
        engine.workspace_id = account.workspace_id
        async with account.async_client() as http:
            yield http


async def make(http: httpx.AsyncClient, url: str, **more: Any) -> dict[str, Any]:
    """A new endpoint."""
    answer = await http.post(PATH, json={"url": url, "events": ["order.*"], **more})
    assert answer.status_code == 201, answer.text
    made: dict[str, Any] = answer.json()
    return made


async def change(http: httpx.AsyncClient, endpoint: dict[str, Any], **values: Any) -> dict[str, Any]:
    """The endpoint, changed."""
    answer = await http.patch(f"{PATH}/{endpoint['id']}", json=values)
    assert answer.status_code == 200, answer.text
    changed: dict[str, Any] = answer.json()
    return changed


async def send(http: httpx.AsyncClient, data: Any, type: str = "order.paid") -> str:
    """The id of a new event."""
    answer = await http.post("/v1/events", content=json.dumps({"type": type, "data": data}),
                             headers={"content-type": "application/json"})  # fmt: skip
    assert answer.status_code == 201, answer.text
    id: str = answer.json()["id"]
    return id


async def relayed(engine: Engine) -> None:
    """Wait until every event has met its endpoints, and every delivery has ended."""
    await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.outbox"))
    await engine.until(lambda: engine.pool.fetchval("SELECT count(*) = 0 FROM spine.deliveries_open"))


def got(receiver: Receiver, path: str) -> list[str]:
    """The events that came to a path."""
    return sorted(call.event_id for call in receiver.to(path))


async def test_only_what_matches_type_and_filter_comes(
    caller: httpx.AsyncClient, engine: Engine, receiver: Receiver
) -> None:
    """An endpoint with a filter gets the events of its types whose data holds it, and no others; its neighbour gets all."""
    made = await make(caller, receiver.url("/gold"), filter=GOLD, events=["order.*", "order.paid", "stock.low"])
    await make(caller, receiver.url("/all"))
    await make(caller, receiver.url("/empty"), filter={})
    assert made["filter"] == GOLD
    rich = {"pipeline": "sales", "customer": {"tier": "gold", "id": 7}, "n": [1]}
    wanted = [await send(caller, rich), await send(caller, rich, "stock.low"), await send(caller, GOLD, "order.a.b")]
    others = [
        await send(caller, {"pipeline": "sales", "customer": {"tier": "tin"}}),
        await send(caller, {"customer": {"tier": "gold"}}),
        await send(caller, {}),
    ]
    await send(caller, rich, "stock.high")
    async with engine.running_worker():
        await relayed(engine)
    assert got(receiver, "/gold") == sorted(wanted)
    assert got(receiver, "/all") == got(receiver, "/empty") == sorted([wanted[0], wanted[2], *others])


async def test_each_event_meets_the_filter_of_its_accept_time(
    caller: httpx.AsyncClient, engine: Engine, receiver: Receiver
) -> None:
    """However late the relay comes, an event is judged by the filter that was in force when it was accepted (ADR 3)."""
    endpoint = await make(caller, receiver.url("/hook"), filter={"n": 1})
    first = [await send(caller, {"n": 1}), await send(caller, {"n": True})]
    await change(caller, endpoint, filter={"n": True})
    second = [await send(caller, {"n": 1}), await send(caller, {"n": True})]
    await change(caller, endpoint, filter=None)
    third = [await send(caller, {"n": 1}), await send(caller, {"n": True})]
    await change(caller, endpoint, filter={"n": 2}, events=["order.paid"])
    await send(caller, {"n": 1})
    async with engine.running_worker():
        await relayed(engine)
    assert got(receiver, "/hook") == sorted([first[0], second[1], *third])


async def test_no_instant_lies_between_two_filters(caller: httpx.AsyncClient, engine: Engine) -> None:
    """The new subscription begins at the very instant at which the old one ends; what did not change goes on."""
    endpoint = await make(caller, "http://127.0.0.1:9/", events=["order.*", "*"], filter={"n": 1})
    await change(caller, endpoint, filter={"n": 2})
    await change(caller, endpoint, filter={"n": 2}, events=["*"])
    rows = await engine.pool.fetch(
        "SELECT pattern, filter, valid_from, valid_to, valid_to = 'infinity' AS open FROM spine.subscriptions WHERE endpoint_id = $1 "
        "ORDER BY pattern, valid_from",
        endpoint["id"],
    )
    assert [(row["pattern"], row["filter"], row["open"]) for row in rows] == [
        ("*", '{"n":1}', False),
        ("*", '{"n":2}', True),
        ("order.*", '{"n":1}', False),
        ("order.*", '{"n":2}', False),
    ]
    assert rows[0]["valid_to"] == rows[1]["valid_from"] == rows[2]["valid_to"] == rows[3]["valid_from"]


async def test_a_filter_is_shown_and_changed_like_any_field(caller: httpx.AsyncClient) -> None:
    """The same filter again is no change, in whatever order; 1 and true are two; null takes it away; events tell of it."""
    made = await make(caller, "http://127.0.0.1:9/", filter={"b": 1, "a": {"c": [1]}})
    assert (await caller.get(f"{PATH}/{made['id']}")).json()["filter"] == {"a": {"c": [1]}, "b": 1}
    assert (await change(caller, made, filter={"a": {"c": [1]}, "b": 1}))["version"] == 1
    other = await change(caller, made, filter={"a": {"c": [1]}, "b": True})
    assert (other["version"], other["filter"]["b"]) == (2, True)
    assert (await change(caller, made, description="x"))["filter"] == other["filter"]
    assert (await change(caller, made, filter=None))["filter"] is None
    assert (await make(caller, "http://127.0.0.1:9/"))["filter"] is None
    told = (await caller.get("/v1/events", params={"type": "webhook_endpoint.*"})).json()["data"]
    assert [event["data"]["filter"] and event["data"]["filter"]["b"] for event in told] == [1, True, True, None, None]


@pytest.mark.parametrize(
    "filter",
    [[], "gold", 7, True, {"a": "x" * 1024}, {"a": {"a": {"a": {"a": {"a": {}}}}}}, {"a\x00": 1}, {"a": ["\x00"]}],
    ids=["list", "text", "number", "truth", "large", "deep", "nul-in-name", "nul"],
)
async def test_bad_filters_are_422(filter: Any, caller: httpx.AsyncClient) -> None:
    """What is no filter is refused at create and at change, with the field's name and what would mend it."""
    made = await make(caller, "http://127.0.0.1:9/")
    for answer in (
        await caller.post(PATH, json={"url": "http://127.0.0.1:9/", "events": ["*"], "filter": filter}),
        await caller.patch(f"{PATH}/{made['id']}", json={"filter": filter}),
    ):
        assert (answer.status_code, answer.json()["param"]) == (422, "filter"), answer.text
        assert answer.json()["detail"].startswith("filter: ")


async def test_odd_payloads_stop_nothing(caller: httpx.AsyncClient, engine: Engine, receiver: Receiver) -> None:
    """Payloads that jsonb cannot take are judged all the same; one that is no JSON is delivered, and the batch goes on."""
    await make(caller, receiver.url("/gold"), filter={"tier": "gold"})
    await make(caller, receiver.url("/all"))
    deep: Any = 1
    for _ in range(200):
        deep = [deep]
    odd: list[dict[str, Any]] = [
        {"x": "\x00"},
        {"\x00": 1},
        {"x": 1.7e308},
        {"x": 5e-324},
        {"x": deep},
        {"x": "\udbff\udfff"},
    ]
    wanted = [await send(caller, {"tier": "gold", **data}) for data in odd]
    others = [await send(caller, {"tier": "tin", **data}) for data in odd]
    async with engine.pool.acquire() as connection, connection.transaction():
        await connection.execute("SELECT set_config('app.ws', $1, true)", engine.workspace_id)
        broken = wanted[0][:-4] + "ZZZZ"
        await connection.execute("SELECT spine.events_put($1, $2, $3)", [broken], ["order.paid"], [b"\xff no JSON"])
    wanted += [broken, await send(caller, {"tier": "gold"})]
    async with engine.running_worker():
        await relayed(engine)
    assert got(receiver, "/gold") == sorted(wanted)
    assert got(receiver, "/all") == sorted(wanted + others)


async def test_an_erased_payload_is_a_dead_letter_all_the_same(
    caller: httpx.AsyncClient, engine: Engine, receiver: Receiver
) -> None:
    """Nobody can say any more whether it held the filter: it stands in the dead letters rather than nowhere (promise 1)."""
    endpoint = await make(caller, receiver.url("/gold"), filter={"tier": "gold"})
    erased = await send(caller, {"tier": "tin"})
    assert (await caller.post(f"/v1/events/{erased}/erase")).status_code == 200
    async with engine.running_worker():
        (row,) = await engine.until_states(dead=1)
    assert (row["event_id"], row["endpoint_id"], row["reason"]) == (erased, endpoint["id"], "payload_erased")
    assert receiver.calls == []


async def test_a_test_event_comes_whatever_the_filter(
    caller: httpx.AsyncClient, engine: Engine, receiver: Receiver
) -> None:
    """`/test` sends, as it does whatever the types."""
    made = await make(caller, receiver.url("/gold"), filter=GOLD)
    sent = (await caller.post(f"{PATH}/{made['id']}/test")).json()
    async with engine.running_worker():
        await engine.until_states(delivered=1)
    assert got(receiver, "/gold") == [sent["event_id"]]


async def test_replay_missing_honours_the_filter(caller: httpx.AsyncClient, engine: Engine, receiver: Receiver) -> None:
    """What is missing is what the endpoint's filter of now would have let in: counted before, delivered once, paced by its rate."""
    odd = [await send(caller, {"tier": "gold", "x": "\x00"}), await send(caller, {"tier": "tin", "x": "\x00"})]
    before = [await send(caller, {"tier": ("gold", "tin")[n % 2]}) for n in range(240)]
    async with engine.running_worker():
        await relayed(engine)
        made = await make(caller, receiver.url("/late"), filter={"tier": "tin"})
        replay = (await caller.post(f"{PATH}/{made['id']}/replay_missing",
                                    json={"since": "2020-01-01T00:00:00Z", "rate_per_s": 200})).json()  # fmt: skip
        assert (replay["total"], replay["filter"]["data"]) == (121, {"tier": "tin"})
        await _done(caller, replay)
        assert got(receiver, "/late") == sorted([odd[1], *before[1::2]])
        await change(caller, made, filter={"tier": "gold"})
        for total in (121, 0):
            replay = (await caller.post(f"{PATH}/{made['id']}/replay_missing",
                                        json={"since": "2020-01-01T00:00:00Z"})).json()  # fmt: skip
            assert replay["total"] == total
            assert (await _done(caller, replay))["progress"] == {"total": total, "done": total, "failed": 0}
    assert got(receiver, "/late") == sorted([*odd, *before])


async def _done(http: httpx.AsyncClient, replay: dict[str, Any]) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while replay["status"] != "done":
            await asyncio.sleep(0.05)
            replay = (await http.get(f"/v1/replays/{replay['id']}")).json()
    return replay


async def test_a_replay_of_dead_letters_asks_no_filter(
    caller: httpx.AsyncClient, engine: Engine, receiver: Receiver
) -> None:
    """What was fixed when the event was accepted stays: a delivery is put back whatever its endpoint listens to by now."""
    made = await make(caller, receiver.url("/gold"), filter={"tier": "gold"})
    id = await send(caller, {"tier": "gold"})
    async with engine.running_worker():
        await relayed(engine)
        await change(caller, made, filter={"tier": "tin"})
        answer = await caller.post("/v1/replays", json={"filter": {"endpoint_id": made["id"], "status": "delivered"}})
        await _done(caller, answer.json())
    assert [call.event_id for call in receiver.to("/gold")] == [id, id]


async def test_costly_filters_cut_the_batch(engine: Engine, receiver: Receiver) -> None:
    """Events that take long to judge are relayed a few at a time, each exactly as its filter has it, and nobody is left out."""
    await engine.endpoint(receiver.url("/costly"), filter={"items": [{"sku": "none"}]})
    await engine.endpoint(receiver.url("/all"))
    costly = await engine.publish(count=8, data={"items": [{"sku": n} for n in range(STEPS_OF_AN_EVENT * 2 // 5)]})
    async with engine.running_worker():
        await relayed(engine)
    assert got(receiver, "/all") == sorted(costly)
    assert receiver.count["/costly"] == 0
    batches = await engine.pool.fetch("SELECT count(*) FROM spine.deliveries_closed GROUP BY xid")
    assert max(row["count"] for row in batches) * STEPS_OF_AN_EVENT * 4 // 5 <= STEPS_OF_A_BATCH + STEPS_OF_AN_EVENT


def test_filters_mean_what_postgres_means(postgres_url: str) -> None:
    """For any object and any filter the answer is that of `jsonb @>`."""

    async def judged(pairs: list[tuple[Any, Any]]) -> list[bool]:
        connection = await asyncpg.connect(postgres_url)
        try:
            rows = await connection.fetch(
                "SELECT u.value::jsonb @> u.part::jsonb AS held FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS u (value, part, n) "
                "ORDER BY n",
                [json.dumps(value) for value, _ in pairs],
                [json.dumps(part) for _, part in pairs],
            )
            return [row["held"] for row in rows]
        finally:
            await connection.close()

    @settings(max_examples=60, deadline=None)
    @given(st.lists(value_and_part(OBJECTS), min_size=10, max_size=30))
    def agree(pairs: list[tuple[Any, Any]]) -> None:
        pairs += [(part, value) for value, part in pairs]
        assert [contains(value, part, Steps(10**6)) for value, part in pairs] == asyncio.run(judged(pairs))

    agree()
