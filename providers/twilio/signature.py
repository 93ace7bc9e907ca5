"""Twilio's request signatures: HMAC over the exact URL and the sorted fields of the form, by SHA-1 or SHA-256."""

import hashlib
import hmac
from base64 import b64encode
from collections import defaultdict
from collections.abc import Iterable
from typing import Final
from urllib.parse import urlsplit, urlunsplit

_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


def is_signed(auth_token: str, url: str, fields: Iterable[tuple[str, str]], signature: str, settings: str = "") -> bool:
    """True if a request has Twilio's signature for this URL.

    Twilio signs the URL that it was given. It may have left out or added the port, so both forms are tried, as its own
    libraries do. `settings` is the header X-Twilio-Webhooks-Signature-Settings, which may name SHA-256.
    """
    digest = hashlib.sha256 if "HMAC_SHA256" in settings else hashlib.sha1
    values: dict[str, set[str]] = defaultdict(set)
    for name, value in fields:
        values[name].add(value)
    signed = "".join(name + value for name in sorted(values) for value in sorted(values[name]))
    matches = [
        hmac.compare_digest(
            b64encode(hmac.new(auth_token.encode(), (form + signed).encode(), digest).digest()), signature.encode()
        )
        for form in _with_and_without_port(url)
    ]
    return any(matches)


def _with_and_without_port(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = parts.port or _DEFAULT_PORTS.get(parts.scheme, 443)
    return urlunsplit(parts._replace(netloc=host)), urlunsplit(parts._replace(netloc=f"{host}:{port}"))
