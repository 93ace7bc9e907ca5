"""The list of all provider adapters."""

import asyncpg

from providers.exotel import ExotelProvider
from providers.http import HttpProvider
from providers.msg91 import Msg91Provider
from providers.postmark import PostmarkProvider
from providers.protocol import Provider
from providers.sandbox import SandboxProvider
from providers.smtp import SmtpProvider
from providers.twilio import TwilioProvider
from providers.whatsapp_cloud import WhatsAppCloudProvider
from spine.kernel.http_client import HttpClient


def open_adapters(
    pool: "asyncpg.Pool[asyncpg.Record] | None", http_client: HttpClient, public_url: str
) -> dict[str, Provider]:
    """Return every adapter by its kind. The sandbox keeps its state in the database of `pool`; without one it
    keeps none, and its messages have no receipts.

    `public_url` is the API's URL, which providers call with receipts.
    """
    adapters: tuple[Provider, ...] = (
        SandboxProvider(pool),
        SmtpProvider(http_client),
        HttpProvider(http_client),
        WhatsAppCloudProvider(http_client),
        TwilioProvider(http_client, public_url),
        Msg91Provider(http_client),
        ExotelProvider(http_client, public_url),
        PostmarkProvider(http_client),
    )
    return {provider.kind: provider for provider in adapters}
