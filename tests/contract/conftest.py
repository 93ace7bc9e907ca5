"""What the tests of this room share: the API in this process, and schemathesis."""

import pytest

from tests.api import api, http, live_http, org

__all__ = ["api", "http", "live_http", "org"]


def pytest_configure(config: pytest.Config) -> None:
    """Load schemathesis for this room alone: it takes longer to import than most rooms' tests to run."""
    config.pluginmanager.import_plugin("schemathesis.pytest.plugin")
