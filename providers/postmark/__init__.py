"""E-mail over Postmark (providers.md 2.4): sending, the classes of its error codes, and its unsigned webhooks."""

from providers.postmark.adapter import PostmarkProvider

__all__ = ["PostmarkProvider"]
