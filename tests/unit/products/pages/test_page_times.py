"""Times are shown in one named zone."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from products.pages.page_times import day_text, span_text, zone, zone_names, zone_text

BERLIN = ZoneInfo("Europe/Berlin")


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (datetime(2026, 10, 25, 0, 30, tzinfo=UTC), "Europe/Berlin, UTC+02:00"),
        (datetime(2026, 10, 25, 1, 30, tzinfo=UTC), "Europe/Berlin, UTC+01:00"),
    ],
)
def test_the_difference_follows_daylight_saving(at: datetime, text: str) -> None:
    """In the hour that comes twice, the two times differ in their difference to UTC."""
    assert zone_text(at.astimezone(BERLIN), "Europe/Berlin") == text


def test_differences_west_of_greenwich_have_their_sign() -> None:
    """Half hours and negative differences are right."""
    at = datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert zone_text(at.astimezone(ZoneInfo("America/St_Johns")), "America/St_Johns") == "America/St_Johns, UTC-03:30"
    assert zone_text(at, "UTC") == "UTC, UTC+00:00"


def test_an_appointment_over_midnight_names_both_days() -> None:
    """The end's day is named only where it is another one in that zone."""
    start, end = datetime(2026, 11, 30, 22, 30, tzinfo=UTC), datetime(2026, 11, 30, 23, 30, tzinfo=UTC)
    assert span_text(start, end, UTC) == "Monday 30 November 2026, 22:30 – 23:30"
    assert span_text(start, end, BERLIN) == "Monday 30 November 2026, 23:30 – Tuesday 1 December 2026, 00:30"
    assert day_text(start.date()) == "Monday 30 November 2026"


@pytest.mark.parametrize("name", ["", "Mars/Base", "../../etc/passwd", "posix/Europe/Berlin", "localtime", "x" * 100])
def test_a_zone_that_nobody_may_choose_is_not_read(name: str) -> None:
    """Anything but a listed zone gives the default one, and a broken default gives UTC."""
    assert zone(name, "Asia/Kolkata").key == "Asia/Kolkata"
    assert zone(name, "No/Where").key == "UTC"


def test_the_usual_zones_can_be_chosen() -> None:
    """The list has the zones of all continents."""
    assert {"Asia/Kolkata", "Europe/Berlin", "America/New_York", "UTC"} <= set(zone_names())
    assert zone("Europe/Berlin", "Asia/Kolkata").key == "Europe/Berlin"
