"""Spine: the kernel, the directory of tenants and people, the products, the command line and the supervisor."""

__version__ = "0.1.0"
