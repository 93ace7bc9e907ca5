"""Normalised phone numbers and e-mail addresses, and the reserved addresses of the sandbox."""

import re
from typing import Annotated, Any, Final

import email_validator
import phonenumbers
from pydantic import AfterValidator, WithJsonSchema

DEFAULT_REGION: Final = "IN"
"""The region of a number without a country code."""
_SANDBOX_PHONE: Final = re.compile(r"\+910000000[0-9]{3}")
_SANDBOX_DOMAIN: Final = "sandbox.test"
SANDBOX_READER: Final = f"delivered@{_SANDBOX_DOMAIN}"
"""A reserved recipient: mail to it is always delivered, and no person reads it."""
_PUNCTUATION: Final = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]|^tel:", re.IGNORECASE)
_MAX_PHONE_CHARS: Final = 40


def phone_e164(text: str) -> str:
    """Return the number in E.164 form (`+` and digits), from any common notation. Raises ValueError if it is no number."""
    if len(text) > _MAX_PHONE_CHARS or "\x00" in text:
        raise ValueError("this is not a phone number")
    digits = _PUNCTUATION.sub("", text.strip())
    if digits.startswith("00") and not digits.startswith("0000"):
        digits = "+" + digits[2:]
    if _SANDBOX_PHONE.fullmatch(digits):
        return digits
    try:
        number = phonenumbers.parse(text, DEFAULT_REGION)
    except phonenumbers.NumberParseException as error:
        raise ValueError(
            "this is not a phone number; give it with its country code, such as +91 98765 43210"
        ) from error
    if not phonenumbers.is_possible_number(number) or number.extension:
        raise ValueError("this phone number cannot exist; give it with its country code, such as +91 98765 43210")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def email_address(text: str) -> str:
    """Return the address in lower case. Raises ValueError if it is no address. Deliverability is not checked."""
    try:
        checked = email_validator.validate_email(text, check_deliverability=False, test_environment=True)
    except email_validator.EmailNotValidError as error:
        raise ValueError(str(error)) from error
    return checked.normalized.lower()


def ascii_email_address(text: str) -> str:
    """Return the address in ASCII, its domain as IDNA. A domain within a company's network is possible.

    Raises ValueError if it is no address, or its local part is not ASCII.
    """
    try:
        checked = email_validator.validate_email(
            text, check_deliverability=False, test_environment=True, allow_smtputf8=False, globally_deliverable=False
        )
    except email_validator.EmailNotValidError as error:
        raise ValueError(str(error)) from error
    assert checked.ascii_email is not None  # without SMTPUTF8 there is one
    return checked.ascii_email


def is_sandbox_address(address: str) -> bool:
    """Return True for a recipient of the sandbox (notifications.md, "Sandbox")."""
    return _SANDBOX_PHONE.fullmatch(address) is not None or address.endswith("@" + _SANDBOX_DOMAIN)


def _schema(**keywords: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **keywords})


Phone = Annotated[
    str,
    AfterValidator(phone_e164),
    _schema(minLength=3, maxLength=_MAX_PHONE_CHARS, examples=["+91 98765 43210", "098765 43210"]),
]
Email = Annotated[str, AfterValidator(email_address), _schema(format="email", maxLength=320)]
