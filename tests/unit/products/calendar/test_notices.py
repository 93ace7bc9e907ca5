"""Local times in what contacts are told."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.calendar.notices import CANCELLED, OFFER, REMINDER, RESCHEDULED, local_time
from spine.notifications.notices import Notice


@pytest.mark.parametrize(
    ("at", "zone", "told"),
    [
        ("2026-12-01T04:30:00+00:00", "Asia/Kolkata", "Tue 01 Dec 2026, 10:00 IST"),
        ("2026-10-25T00:30:00+00:00", "Europe/Berlin", "Sun 25 Oct 2026, 02:30 CEST"),
        ("2026-10-25T01:30:00+00:00", "Europe/Berlin", "Sun 25 Oct 2026, 02:30 CET"),
        ("2026-03-08T07:00:00+00:00", "America/New_York", "Sun 08 Mar 2026, 03:00 EDT"),
    ],
)
def test_a_time_is_told_on_the_zones_wall_clock(at: str, zone: str, told: str) -> None:
    """An hour that occurs twice is told apart by the name of its offset."""
    assert local_time(datetime.fromisoformat(at), zone) == told


@given(st.integers(0, 37 * 366 * 24 * 60), st.sampled_from(["Europe/Berlin", "Asia/Kolkata"]))
def test_no_two_hours_are_told_alike(minutes: int, zone: str) -> None:
    """An hour later is always told otherwise, also when clocks are set back."""
    instant = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    assert local_time(instant, zone) != local_time(instant + timedelta(hours=1), zone)
    assert f"{instant.astimezone(ZoneInfo(zone)):%H:%M}" in local_time(instant, zone)


@pytest.mark.parametrize("notice", [REMINDER, RESCHEDULED, CANCELLED, OFFER], ids=lambda notice: notice.slug)
def test_a_built_in_text_uses_variables_that_it_has(notice: Notice) -> None:
    """Each variable of a built-in text is one that the notice is given."""
    for part in (notice.subject, notice.text):
        for name in part.split("{{ ")[1:]:
            assert name.partition(" }}")[0] in notice.vars
