"""Phone numbers and e-mail addresses in one form each, and the sandbox's own, which belong to nobody."""

import re
from typing import Annotated, Any, Final

import email_validator
import phonenumbers
from pydantic import AfterValidator, WithJsonSchema

HOME_REGION: Final = "IN"
"""Where a number without a country code is dialled."""
_SANDBOX_PHONE: Final = re.compile(r"\+910000000[0-9]{3}")
_SANDBOX_DOMAIN: Final = "sandbox.test"
SANDBOX_READER: Final = f"delivered@{_SANDBOX_DOMAIN}"
"""A recipient that every mail reaches and that is nobody."""
_DRESS: Final = re.compile(r"[\s().\-/\u00a0\u2010-\u2015]|^tel:", re.IGNORECASE)
_MAX_PHONE_CHARS: Final = 40


def phone_e164(text: str) -> str:
    """The number as `+` and digits (E.164), from any common way of writing it. ValueError for what is no number."""
    if len(text) > _MAX_PHONE_CHARS or "\x00" in text:
        raise ValueError("this is not a phone number")
    bare = _DRESS.sub("", text.strip())
    bare = "+" + bare[2:] if bare.startswith("00") and not bare.startswith("0000") else bare
    if _SANDBOX_PHONE.fullmatch(bare):
        return bare
    try:
        number = phonenumbers.parse(text, HOME_REGION)
    except phonenumbers.NumberParseException as error:
        raise ValueError(
            "this is not a phone number; give it with its country code, such as +91 98765 43210"
        ) from error
    if not phonenumbers.is_possible_number(number) or number.extension:
        raise ValueError("this phone number cannot exist; give it with its country code, such as +91 98765 43210")
    return str(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164))


def email_address(text: str) -> str:
    """The address in lower case. ValueError for what is none; whether anybody reads it is not asked."""
    try:
        checked = email_validator.validate_email(text, check_deliverability=False, test_environment=True)
    except email_validator.EmailNotValidError as error:
        raise ValueError(str(error)) from error
    return checked.normalized.lower()


def is_sandbox_address(address: str) -> bool:
    """Whether it is one of the sandbox's recipients (notifications.md, "Sandbox")."""
    return _SANDBOX_PHONE.fullmatch(address) is not None or address.endswith("@" + _SANDBOX_DOMAIN)


def _schema(**keywords: Any) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", **keywords})


Phone = Annotated[
    str,
    AfterValidator(phone_e164),
    _schema(minLength=3, maxLength=_MAX_PHONE_CHARS, examples=["+91 98765 43210", "098765 43210"]),
]
Email = Annotated[str, AfterValidator(email_address), _schema(format="email", maxLength=320)]
