"""Fixtures of the calendar's tests."""

import httpx
import pytest

from tests.booking import Calendar


@pytest.fixture
def calendar(http: httpx.Client) -> Calendar:
    """The calendar of the organisation's test workspace."""
    return Calendar(http)
