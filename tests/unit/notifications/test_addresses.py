"""Phone numbers and e-mail addresses have one normal form."""

import pytest

from spine.directory.addresses import email_address, is_sandbox_address, phone_e164


@pytest.mark.parametrize(
    "text",
    [
        "+91 98765 43210",
        "098765 43210",
        "9876543210",
        "0091 98765 43210",
        "+91-98765-43210",
        "tel:+919876543210",
        "(+91) 98765.43210",
    ],
)
def test_a_phone_number_is_normalised(text: str) -> None:
    """Every common notation of a number, national or international, gives the same number (wire.md, CRM)."""
    assert phone_e164(text) == "+919876543210"


@pytest.mark.parametrize("text", ["+910000000123", "+91 0000 000 123", "00910000000123", "+91-0000-000-123"])
def test_sandbox_numbers_are_accepted(text: str) -> None:
    """Sandbox numbers cannot exist in reality; they are accepted and keep every zero."""
    assert phone_e164(text) == "+910000000123"
    assert is_sandbox_address("+910000000123")


@pytest.mark.parametrize("text", ["", "hello", "12", "+91 98765 43210 ext. 5", "+999 1234", "1" * 60])
def test_an_invalid_number_is_refused(text: str) -> None:
    """It is refused with a reason, never guessed."""
    with pytest.raises(ValueError, match="number"):
        phone_e164(text)


def test_an_email_address_is_normalised() -> None:
    """Addresses that differ only in case are equal; text without @ is refused."""
    assert email_address("Meera@Example.COM") == "meera@example.com"
    assert is_sandbox_address(email_address("bounce@sandbox.test"))
    with pytest.raises(ValueError, match="@"):
        email_address("nobody")
