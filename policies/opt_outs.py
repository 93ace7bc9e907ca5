"""What people wish: what a reply asks of us, and whether a wish stands against a send (failure cases 19 and 20)."""

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
    """STOP or START, where the whole reply is that word: in any case, with any punctuation. "STOP the order" is neither."""
    normal = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", text).casefold())
    spaced = "".join(" " if unicodedata.category(c)[0] in "PZSC" and c != "-" else c for c in normal)
    words = " ".join(spaced.split()).strip("- ")
    if words in {unicodedata.normalize("NFC", word) for word in _STOP}:
        return "stop"
    return "start" if words in {unicodedata.normalize("NFC", word) for word in _START} else None


@dataclass(frozen=True, slots=True)
class OptOut:
    """What a person wants on a channel and in a category; `*` stands for all of them."""

    channel: str
    category: str
    opted_out: bool


def opted_out(wishes: Iterable[OptOut], channel: str, category: str) -> bool:
    """Whether this must not be sent. The wish that names most decides: a channel before a category, both before either."""
    held = {
        (opt_out_keyword.channel, opt_out_keyword.category): opt_out_keyword.opted_out for opt_out_keyword in wishes
    }
    for key in ((channel, category), (channel, "*"), ("*", category), ("*", "*")):
        if key in held:
            return held[key]
    return False
