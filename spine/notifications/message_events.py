"""Events about messages: their types and the models of their data."""

from datetime import datetime
from typing import Literal

from pydantic import Field

from spine.kernel.events import EventType
from spine.notifications.message_models import MessageData


class MessageEvent(MessageData):
    """A message, as its events tell of it."""

    message_id: str


class MessageSent(MessageEvent):
    """An attempt was accepted by a provider."""

    attempt_id: str
    provider_account_id: str
    provider_message_id: str | None


class MessageDelivered(MessageSent):
    """A provider confirmed the delivery."""

    delivered_at: datetime


class MessageReplied(MessageEvent):
    """A person answered."""

    attempt_id: str
    provider_account_id: str
    reply: str = Field(description="What the person wrote.")
    reply_id: str = Field(description="The provider's id of the answer.")
    wish: Literal["stop", "start"] | None = Field(description="Where the whole answer is such a word.")
    replied_at: datetime


CREATED = EventType("message.created", MessageEvent, "A message was accepted from a caller and queued.")
SENT = EventType("message.sent", MessageSent, "A provider accepted an attempt of a message.")
DELIVERED = EventType("message.delivered", MessageDelivered, "A message was delivered, as its provider's receipt says.")
FAILED = EventType(
    "message.failed", MessageEvent, "A message came to nothing, after all fallbacks; `reasons` says why."
)
REPLIED = EventType("message.replied", MessageReplied, "The person answered a message.")
CANCELLED = EventType("message.cancelled", MessageEvent, "A message was cancelled before anything was sent.")
