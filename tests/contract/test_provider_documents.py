"""The fakes of providers agree with the documents that the providers publish.

The documents are not part of this repository. PROVIDER_DOCUMENTS names a directory with `meta_messages.json` and
`twilio_messages.json`, cut from facebook/openapi (business-messaging-api) and twilio/twilio-oai (twilio_api_v2010).
"""

import json
import os
from collections.abc import AsyncIterator
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import aiohttp
import jsonschema
import orjson
import pytest

from providers.http_calls import basic
from providers.twilio.codes import STATES
from spine.kernel.http_client import HttpClient
from spine.kernel.settings import EgressSettings
from tests.integration.providers.vendor_harnesses import TEMPLATES, vendor_account, vendor_call, vendor_provider
from tests.provider_fakes import twilio, whatsapp_cloud
from tests.provider_fakes.twilio import FakeTwilio
from tests.provider_fakes.whatsapp_cloud import FakeWhatsAppCloud

DIRECTORY = os.environ.get("PROVIDER_DOCUMENTS")
pytestmark = pytest.mark.skipif(
    DIRECTORY is None, reason="PROVIDER_DOCUMENTS names no directory of providers' documents"
)


def document(name: str) -> Any:
    """A provider's document. Closed parts of an `allOf` are opened: they would refuse the fields of the other parts."""

    def opened(value: dict[str, Any]) -> dict[str, Any]:
        return {key: part for key, part in value.items() if key not in {"additionalProperties", "discriminator"}}

    return json.loads((Path(DIRECTORY or "") / name).read_text(), object_hook=opened)


def validate(value: Any, spec: Any, schema: str) -> None:
    """Validate a value against a schema of a document."""
    root = {"$ref": f"#/components/schemas/{schema}", "components": spec["components"]}
    jsonschema.Draft202012Validator(root).validate(value)


@pytest.fixture
async def http_client() -> AsyncIterator[HttpClient]:
    """An HTTP client that may connect to loopback."""
    async with HttpClient(EgressSettings(egress_allow=(IPv4Network("127.0.0.0/8"),))) as client:
        yield client


async def test_whatsapp_is_as_meta_publishes_it(http_client: HttpClient) -> None:
    """Both forms of a message, the answer to one, and webhooks with statuses, replies and a changed number."""
    spec, service = document("meta_messages.json"), FakeWhatsAppCloud()
    async with service.run():
        account = vendor_account("whatsapp_cloud", service)
        for templates in ({}, TEMPLATES):
            call = vendor_call("whatsapp_cloud", provider_templates=templates)
            await vendor_provider("whatsapp_cloud", http_client).send(account, call)
        for sent, schema in zip(service.sent, ("TextMessage", "TemplateMessage"), strict=True):
            validate(sent.fields, spec, schema)
        async with aiohttp.ClientSession() as session:
            headers = {"Authorization": f"Bearer {whatsapp_cloud.TOKEN}"}
            url = f"{service.url}/{whatsapp_cloud.PHONE_NUMBER_ID}/messages"
            async with session.post(url, json=dict(service.sent[0].fields), headers=headers) as answer:
                validate(await answer.json(), spec, "MessageResponsePayload")
    # The document's own example of a system message lacks what its first part requires: the second part is the message's.
    moved = {"$ref": "#/components/schemas/SystemMessage/allOf/1", "components": spec["components"]}
    jsonschema.Draft202012Validator(moved).validate(whatsapp_cloud.moved("wamid.3", "1", "2"))
    status = whatsapp_cloud.status("wamid.1", "failed", code=131026)
    reply = whatsapp_cloud.message("wamid.2", "919812345000", "Yes", "wamid.1")
    validate(status, spec, "Statuses")
    validate(status["errors"][0], spec, "StatusError")
    body = orjson.loads(whatsapp_cloud.webhook({"statuses": [status]}, {"messages": [reply], "contacts": []}))
    assert set(body) == set(spec["components"]["schemas"]["WebhookPayload"]["required"])
    for change in body["entry"][0]["changes"]:
        assert set(spec["components"]["schemas"]["Change"]["required"]) <= set(change)


async def test_twilio_is_as_it_publishes_it(http_client: HttpClient) -> None:
    """Each field that is sent is one of CreateMessage; answers and states are those of the Message resource."""
    spec, service = document("twilio_messages.json"), FakeTwilio()
    operation = spec["paths"]["/2010-04-01/Accounts/{AccountSid}/Messages.json"]["post"]
    form = operation["requestBody"]["content"]["application/x-www-form-urlencoded"]["schema"]
    assert set(form["properties"]) >= twilio.FIELDS
    states = set(spec["components"]["schemas"]["message_enum_status"]["enum"])
    resource = spec["components"]["schemas"]["api.v2010.account.message"]["properties"]
    async with service.run():
        await vendor_provider("twilio", http_client).send(vendor_account("twilio", service), vendor_call("twilio"))
        assert set(service.sent[0].fields) <= set(form["properties"])
        async with aiohttp.ClientSession(
            headers={"Authorization": basic(twilio.ACCOUNT_SID, twilio.AUTH_TOKEN)}
        ) as session:
            url = f"{service.url}/Accounts/{twilio.ACCOUNT_SID}/Messages/{service.sent[0].id}.json"
            async with session.get(url) as answer:
                found = await answer.json()
    assert set(found) <= set(resource)
    assert found["status"] in states
    assert set(STATES) <= states
