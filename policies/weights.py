"""Weights: which of several equal accounts a message goes to first (weighted rendezvous hashing).

Each message has an order of its own, which every worker finds alike. Over many messages an account is first as often as
its share of the weights. An account that is added or removed moves only the messages that it wins or had won.
"""

import math
from collections.abc import Mapping
from hashlib import blake2b
from typing import Final

_BITS: Final = 53
"""As many as a float holds exactly."""


def in_turn(key: str, weights: Mapping[str, float]) -> list[str]:
    """Return the names of `weights` in the order in which `key`, a message's id, tries them. Weights are positive."""
    return sorted(weights, key=lambda name: (-_score(key, name, weights[name]), name))


def _score(key: str, name: str, weight: float) -> float:
    digest = blake2b(f"{key}\0{name}".encode(), digest_size=8).digest()
    drawn = ((int.from_bytes(digest) >> (64 - _BITS)) + 1) / (2**_BITS + 1)  # above 0 and below 1
    return weight / -math.log(drawn)
