"""The sandbox: the adapter, whose recipients script their outcomes, and the store of the calls that it accepted."""

from providers.sandbox.adapter import SandboxProvider

__all__ = ["SandboxProvider"]
