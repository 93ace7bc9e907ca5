"""What is served: every room's router, every event type, in one place and in plain sight."""

from itertools import chain

from fastapi import APIRouter

from products import inbound
from spine import api_keys, clock, contacts, signup, users
from spine.events import Catalogue
from spine.messages import accounts, channel_policies, messages, models, preferences, simulation, templates
from spine.resource import Resource
from spine.webhooks import deliveries, endpoints, event_types, events, replays, testing

RESOURCES: tuple[Resource, ...] = (
    api_keys.API_KEY,
    users.USER,
    endpoints.ENDPOINT,
    event_types.EVENT_TYPE,
    replays.REPLAY,
    contacts.CONTACT,
    templates.TEMPLATE,
    channel_policies.POLICY,
    accounts.ACCOUNT,
    preferences.PREFERENCE,
    models.MESSAGE,
)

ROUTERS: tuple[APIRouter, ...] = (
    signup.router,
    api_keys.router,
    users.router,
    endpoints.router,
    event_types.router,
    events.router,
    deliveries.router,
    replays.router,
    testing.router,
    clock.router,
    contacts.router,
    templates.router,
    channel_policies.router,
    simulation.router,
    accounts.router,
    preferences.router,
    messages.router,
    inbound.router,
)

OTHER_EVENTS = (
    events.ERASED,
    deliveries.DEAD_LETTERED,
    deliveries.REPLAYED,
    testing.TESTED,
    clock.ADVANCED,
    simulation.SIMULATED,
)
"""Events of nouns that are no generic resource."""

CATALOGUE = Catalogue(chain(chain.from_iterable(resource.events for resource in RESOURCES), OTHER_EVENTS))

PRODUCTS: dict[str, tuple[tuple[str, ...], frozenset[str]]] = {
    "platform": (
        ("/v1/", "/.well-known/"),
        frozenset({"api_key", "user", "webhook_endpoint", "delivery", "event_type", "event", "replay", "test_clock"}),
    ),
    "notifications": (
        ("/notifications/v1/",),
        frozenset({"message", "template", "policy", "preference", "provider_account"}),
    ),
    "crm": (("/crm/v1/",), frozenset({"contact"})),
}
"""Each product's own document: the paths it covers, and the families of its events."""
