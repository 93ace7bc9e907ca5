"""Fixtures of this product's tests."""

import httpx
import pytest

from tests.api import Api, Organisation
from tests.works_client import Works


@pytest.fixture
def works(http: httpx.Client, api: Api, org: Organisation) -> Works:
    """Works in the organisation's test workspace."""
    return Works(http, api, org.test)
