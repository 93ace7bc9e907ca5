"""WhatsApp over Meta's Cloud API (providers.md 2.1): sending, the classes of its error codes, and its callbacks."""

from providers.whatsapp_cloud.adapter import WhatsAppCloudProvider

__all__ = ["WhatsAppCloudProvider"]
