"""The calendar file of an appointment."""

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from products.pages.calendar_file import Entry, calendar_file

AT = datetime(2026, 11, 30, 4, 30, tzinfo=UTC)


def entry(summary: str = "AC service", *, cancelled: bool = False) -> Entry:
    """An appointment of one hour."""
    return Entry("apt_1", 1, summary, AT, AT.replace(hour=5), AT, cancelled)


def test_the_file_has_the_appointment_in_utc() -> None:
    """Start, end, id and state are there, each on a line of its own."""
    lines = calendar_file(entry("Cut; wash, dry")).decode().split("\r\n")
    for line in ("UID:apt_1", "DTSTART:20261130T043000Z", "DTEND:20261130T053000Z", "STATUS:CONFIRMED", "SEQUENCE:1"):
        assert line in lines
    assert "SUMMARY:Cut\\; wash\\, dry" in lines
    assert "STATUS:CANCELLED" in calendar_file(entry(cancelled=True)).decode()


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300))
def test_no_text_breaks_the_lines(summary: str) -> None:
    """Lines have at most 75 bytes and are UTF-8, and a text adds no line of its own (RFC 5545, section 3.1)."""
    lines = calendar_file(entry(summary)).split(b"\r\n")
    assert lines.pop() == b""
    assert all(len(line) <= 75 for line in lines)
    assert [line.decode() for line in lines if line.startswith(b"END:")] == ["END:VEVENT", "END:VCALENDAR"]
    unfolded = b"\r\n".join(lines).replace(b"\r\n ", b"").split(b"\r\n")
    assert len(unfolded) == 14
