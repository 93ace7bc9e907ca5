"""Money: an amount in the currency's minor unit, and the currency's code (ISO 4217)."""

from typing import Annotated, Final

from babel.core import get_global
from pydantic import AfterValidator, Field, WithJsonSchema

MAX_AMOUNT_MINOR: Final = 10**15
CURRENCIES: Final = frozenset(
    code
    for currencies in get_global("territory_currencies").values()
    for code, _since, until, tender in currencies
    if until is None and tender
)
"""The currencies that are legal tender somewhere at present."""


def _known(code: str) -> str:
    if code not in CURRENCIES:
        raise ValueError("give the ISO 4217 code of a currency in use, such as INR")
    return code


AmountMinor = Annotated[
    int, Field(ge=0, le=MAX_AMOUNT_MINOR, description="In the currency's minor unit: 49900 INR are 499 rupees.")
]
Currency = Annotated[
    str,
    AfterValidator(_known),
    WithJsonSchema({"type": "string", "pattern": "^[A-Z]{3}$", "enum": sorted(CURRENCIES), "examples": ["INR"]}),
]
