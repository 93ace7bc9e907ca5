"""Fixtures of the contract tests: the API in this process, and schemathesis."""

import pytest

from tests.api import api, http, live_http, org

__all__ = ["api", "http", "live_http", "org"]


def pytest_configure(config: pytest.Config) -> None:
    """Load schemathesis for these tests only, because its import is slow."""
    config.pluginmanager.import_plugin("schemathesis.pytest.plugin")
