"""SMS to India over MSG91 (providers.md 2.3): sending by a template that MSG91 holds, and its unsigned reports."""

from providers.msg91.adapter import Msg91Provider

__all__ = ["Msg91Provider"]
