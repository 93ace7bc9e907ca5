"""SMS to India over Exotel (providers.md 2.3): sending with DLT ids, its unsigned callbacks, and asking for a state."""

from providers.exotel.adapter import ExotelProvider

__all__ = ["ExotelProvider"]
