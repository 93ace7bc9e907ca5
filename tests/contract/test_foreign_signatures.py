"""Standard Webhooks signatures, verified by the public libraries."""

import json
from datetime import UTC, datetime

import pytest
import standardwebhooks
import svix.webhooks

from spine.webhooks.signing import Verifier, new_secret, sign

NOW = 1_800_000_000
ID = "evt_01JD7Z8Q4M5N6P7R8S9TABCDEF"
BODY = json.dumps({"type": "ticket.created", "text": "naïve 🚀 \u2028"}, ensure_ascii=False).encode()


@pytest.mark.parametrize(
    ("library", "error"),
    [
        (standardwebhooks.Webhook, standardwebhooks.WebhookVerificationError),
        (svix.webhooks.Webhook, svix.webhooks.WebhookVerificationError),
    ],
)
@pytest.mark.parametrize("rotation", [0, 1])
def test_receivers_libraries_accept_what_we_sign(
    library: type[standardwebhooks.Webhook], error: type[Exception], rotation: int
) -> None:
    """Both libraries verify a delivery with either secret during a rotation, and refuse a changed body."""
    secrets = [new_secret(), new_secret()]
    timestamp_s = int(datetime.now(UTC).timestamp())
    signature = sign(ID, timestamp_s, BODY, secrets)
    headers = {"webhook-id": ID, "webhook-timestamp": str(timestamp_s), "webhook-signature": signature}
    library(secrets[rotation]).verify(BODY, headers)
    with pytest.raises(error):
        library(secrets[rotation]).verify(BODY + b" ", headers)


def test_we_accept_what_receivers_libraries_sign() -> None:
    """Our verifier accepts a signature of the reference library."""
    secret = new_secret()
    signature = standardwebhooks.Webhook(secret).sign(ID, datetime.fromtimestamp(NOW, UTC), BODY.decode())
    assert Verifier([secret]).verify(ID, str(NOW), signature, BODY, NOW)
