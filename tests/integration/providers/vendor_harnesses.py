"""The adapters of single vendors under test, each connected to the fake of its vendor."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Final

from providers.exotel import ExotelProvider
from providers.msg91 import Msg91Provider
from providers.postmark import PostmarkProvider
from providers.protocol import Provider
from providers.twilio import TwilioProvider
from providers.whatsapp_cloud import WhatsAppCloudProvider
from spine.kernel.http_client import HttpClient
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderCall
from spine.notifications.provider_kinds import PROVIDER_KINDS
from tests.integration.providers.provider_fakes import Harness, make_call
from tests.provider_fakes import msg91, twilio, whatsapp_cloud
from tests.provider_fakes.exotel import FakeExotel
from tests.provider_fakes.msg91 import FakeMsg91
from tests.provider_fakes.postmark import FakePostmark
from tests.provider_fakes.service import FakeService, number_of
from tests.provider_fakes.twilio import FakeTwilio
from tests.provider_fakes.whatsapp_cloud import FakeWhatsAppCloud

VENDORS: Final = ("whatsapp_cloud", "twilio", "msg91", "exotel", "postmark")
PUBLIC_URL: Final = "https://spine.example"
DLT: Final = {
    "entity_id": "1201159",
    "template_id": "1207161",
    "header": "SPINEX",
    "category": "service_implicit",
    "variables": [],
}
TEMPLATES: Final[dict[str, Any]] = {
    "whatsapp_cloud": {"name": "appt_reminder", "language": "en", "body": ["time"]},
    "twilio": {"content_sid": "HX" + "0" * 32, "variables": {"1": "time"}},
    "msg91": {"template_id": msg91.FLOW, "variables": {"VAR1": "time"}},
}
CONFIGS: Final[dict[str, dict[str, Any]]] = {
    "whatsapp_cloud": {"phone_number_id": whatsapp_cloud.PHONE_NUMBER_ID},
    "twilio": {"sender": twilio.SENDER},
    "msg91": {},
    "exotel": {"sender": "SPINEX"},
    "postmark": {"sender": "spine@example.com"},
}
FAKES: Final[dict[str, type[FakeService]]] = {
    "whatsapp_cloud": FakeWhatsAppCloud,
    "twilio": FakeTwilio,
    "msg91": FakeMsg91,
    "exotel": FakeExotel,
    "postmark": FakePostmark,
}


def vendor_account(kind: str, service: Any, **credentials: str) -> ProviderAccount:
    """An account of this kind at its fake."""
    models = PROVIDER_KINDS[kind]
    (channel,) = models.channels
    return ProviderAccount(
        "wsp_1", "prv_1", "live", str(channel), kind,
        models.credentials.model_validate(service.credentials(**credentials)), models.config.model_validate(CONFIGS[kind]), None,
    )  # fmt: skip


def vendor_provider(kind: str, http_client: HttpClient) -> Provider:
    """The adapter of this kind."""
    made: dict[str, Provider] = {
        "whatsapp_cloud": WhatsAppCloudProvider(http_client),
        "twilio": TwilioProvider(http_client, PUBLIC_URL),
        "msg91": Msg91Provider(http_client),
        "exotel": ExotelProvider(http_client, PUBLIC_URL),
        "postmark": PostmarkProvider(http_client),
    }
    return made[kind]


def vendor_call(kind: str, outcome: str = "accepted", **fields: Any) -> ProviderCall:
    """A call whose recipient scripts this outcome."""
    if kind == "postmark":
        return make_call(to=f"{outcome}@example.com", **fields)
    channel = "whatsapp" if kind == "whatsapp_cloud" else "sms"
    templates = {"provider_templates": {"msg91": TEMPLATES["msg91"]}} if kind == "msg91" else {}
    return make_call(channel=channel, to=number_of(outcome), **templates | fields)


@asynccontextmanager
async def vendor_harness(kind: str, http_client: HttpClient) -> AsyncIterator[Harness]:
    """An adapter and its fake."""
    service: Any = FAKES[kind]()
    async with service.run():

        def prepare(outcome: str) -> tuple[ProviderAccount, ProviderCall]:
            account = vendor_account(kind, service)
            if outcome == "unreachable":
                closed = account.credentials.model_copy(update={"api_url": "http://127.0.0.1:9"})
                return replace(account, credentials=closed), vendor_call(kind)
            return account, vendor_call(kind, outcome)

        async def count_arrivals(attempt_id: str) -> int:
            if kind == "msg91":  # it takes no reference of ours
                return len(service.sent)
            return int(service.count(attempt_id))

        yield Harness(vendor_provider(kind, http_client), prepare, count_arrivals)
        assert service.refused == []
