"""Counts the parts that an SMS is sent and paid in: GSM-7 (3GPP TS 23.038) if all its characters are in it, else UCS-2."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

_BASIC: Final = frozenset(
    "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿"
    "abcdefghijklmnopqrstuvwxyzäöñüà"
)
_EXTENSION: Final = frozenset("\f^{}\\[~]|€")
"""Each takes an escape and a character."""
_ONE: Final = {"gsm7": 160, "ucs2": 70}
_OF_SEVERAL: Final = {"gsm7": 153, "ucs2": 67}
"""A part of several has a header of 6 bytes."""


@dataclass(frozen=True, slots=True)
class Segments:
    """How a text is sent as SMS."""

    encoding: Literal["gsm7", "ucs2"]
    count: int


def sms_segments(text: str) -> Segments:
    """Return the encoding and the number of parts. No part ends within a character. An empty text has one part."""
    if all(char in _BASIC or char in _EXTENSION for char in text):
        return Segments("gsm7", _count("gsm7", (2 if char in _EXTENSION else 1 for char in text)))
    return Segments("ucs2", _count("ucs2", (2 if ord(char) > 0xFFFF else 1 for char in text)))


def _count(encoding: Literal["gsm7", "ucs2"], sizes: Iterable[int]) -> int:
    """Return the number of parts for characters of these sizes, in septets or in 16-bit units."""
    whole = list(sizes)
    if sum(whole) <= _ONE[encoding]:
        return 1
    room, count, used = _OF_SEVERAL[encoding], 1, 0
    for size in whole:
        if used + size > room:
            count, used = count + 1, 0
        used += size
    return count
