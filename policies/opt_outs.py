"""Opt-outs: reads STOP and START replies, and decides whether a send is opted out (failure cases 19 and 20)."""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

_STOP: Final = frozenset(
    {"stop", "stopall", "stop all", "unsubscribe", "end", "quit", "cancel", "optout", "opt out", "opt-out",
     "रोको", "रोकें", "रोक दो", "बंद", "बंद करो", "बंद करें", "स्टॉप"}
)  # fmt: skip
_START: Final = frozenset(
    {"start", "unstop", "subscribe", "optin", "opt in", "opt-in", "शुरू", "शुरू करो", "शुरू करें", "स्टार्ट"}
)


def opt_out_keyword(text: str) -> Literal["stop", "start"] | None:
    """Return the keyword if the whole reply is one, in any case and with any punctuation. "STOP the order" is none."""
    normal = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())
    spaced = "".join(" " if unicodedata.category(c)[0] in "PZSC" and c != "-" else c for c in normal)
    words = " ".join(spaced.split()).strip("- ")
    if words in {unicodedata.normalize("NFC", word) for word in _STOP}:
        return "stop"
    return "start" if words in {unicodedata.normalize("NFC", word) for word in _START} else None


@dataclass(frozen=True, slots=True)
class OptOut:
    """A person's preference for a channel and a category; `*` means all of them."""

    channel: str
    category: str
    opted_out: bool


def opted_out(opt_outs: Iterable[OptOut], channel: str, category: str) -> bool:
    """Return True if the message must not be sent.

    The most specific preference decides: channel and category, then channel, then category, then neither.
    """
    preferences = {(opt_out.channel, opt_out.category): opt_out.opted_out for opt_out in opt_outs}
    for key in ((channel, category), (channel, "*"), ("*", category), ("*", "*")):
        if key in preferences:
            return preferences[key]
    return False
