"""SMS over Twilio (providers.md 2.2): sending, the classes of its error codes, its callbacks and their signatures."""

from providers.twilio.adapter import TwilioProvider

__all__ = ["TwilioProvider"]
