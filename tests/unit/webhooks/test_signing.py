"""Standard Webhooks signatures: the published vector, rotation, ed25519, and what is refused."""

import json
from base64 import b64decode, b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine.webhooks.signing import (
    TOLERANCE_S,
    Signer,
    Verifier,
    new_private_key,
    new_secret,
    public_key,
    sign,
)

VECTOR_SECRET = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
VECTOR = ("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
VECTOR_SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
NOW = 1_800_000_000
ID = "evt_01JD7Z8Q4M5N6P7R8S9TABCDEF"
BODY = json.dumps({"type": "ticket.created", "text": "naïve 🚀 \u2028"}, ensure_ascii=False).encode()


@pytest.mark.parametrize("secret", [VECTOR_SECRET, "whsec_" + VECTOR_SECRET])
def test_the_published_vector(secret: str) -> None:
    """The specification's own example, with and without the prefix."""
    assert sign(*VECTOR, [secret]) == VECTOR_SIGNATURE
    assert Verifier([secret]).verify(VECTOR[0], str(VECTOR[1]), VECTOR_SIGNATURE, VECTOR[2], VECTOR[1])


def test_secrets_are_32_random_bytes() -> None:
    """`whsec_` and base64 of 32 bytes, never the same twice."""
    made = {new_secret() for _ in range(50)}
    assert len(made) == 50
    assert all(text.startswith("whsec_") and len(b64decode(text[6:], validate=True)) == 32 for text in made)


def test_v1a_signs_with_the_private_key_and_verifies_with_the_public_one() -> None:
    """ed25519: `whsk_` signs, `whpk_` verifies, another key does not."""
    private = new_private_key()
    signature = sign(ID, NOW, BODY, [private])
    assert signature.startswith("v1a,")
    assert Verifier([public_key(private)]).verify(ID, str(NOW), signature, BODY, NOW)
    assert not Verifier([public_key(new_private_key())]).verify(ID, str(NOW), signature, BODY, NOW)


def test_v1a_keys_of_64_bytes_are_read() -> None:
    """A private key with its public key behind it, as other senders store it, is the same key."""
    private = new_private_key()
    public = public_key(private)
    long = "whsk_" + b64encode(b64decode(private[5:]) + b64decode(public[5:])).decode()
    assert public_key(long) == public


def test_v1a_matches_the_rfc_vector() -> None:
    """RFC 8032 7.1, test 1: the public key of a known private key."""
    seed = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    public = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
    assert public_key("whsk_" + b64encode(seed).decode()) == "whpk_" + b64encode(public).decode()


def test_schemes_may_stand_side_by_side() -> None:
    """One header may carry both schemes, and each verifier takes its own."""
    secret, private = new_secret(), new_private_key()
    signature = sign(ID, NOW, BODY, [secret, private])
    assert [part.partition(",")[0] for part in signature.split(" ")] == ["v1", "v1a"]
    assert Verifier([secret]).verify(ID, str(NOW), signature, BODY, NOW)
    assert Verifier([public_key(private)]).verify(ID, str(NOW), signature, BODY, NOW)


@given(
    message_id=st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1),
    timestamp_s=st.integers(0, 10**11),
    body=st.binary(),
    count=st.integers(1, 3),
)
def test_what_is_signed_verifies(message_id: str, timestamp_s: int, body: bytes, count: int) -> None:
    """Any id, time and bytes, under each of several secrets."""
    secrets = [new_secret() for _ in range(count)]
    signature = Signer(secrets).sign(message_id, timestamp_s, body)
    assert all(Verifier([one]).verify(message_id, str(timestamp_s), signature, body, timestamp_s) for one in secrets)


@pytest.mark.parametrize("field", ["id", "timestamp", "body", "secret", "signature"])
@pytest.mark.parametrize("scheme", ["v1", "v1a"])
def test_any_change_is_seen(field: str, scheme: str) -> None:
    """Change one byte of what was signed, of the signature or of the key, and it no longer verifies."""
    make = new_secret if scheme == "v1" else new_private_key
    signing = make()
    verifying = signing if scheme == "v1" else public_key(signing)
    id_, stamp, body, signature = ID, NOW, BODY, sign(ID, NOW, BODY, [signing])
    if field == "id":
        id_ += "x"
    elif field == "timestamp":
        stamp += 1
    elif field == "body":
        body += b" "
    elif field == "secret":
        signature = sign(ID, NOW, BODY, [make()])
    else:
        raw = bytearray(b64decode(signature.partition(",")[2]))
        raw[0] ^= 1
        signature = f"{scheme},{b64encode(raw).decode()}"
    assert not Verifier([verifying]).verify(id_, str(stamp), signature, body, NOW)


@pytest.mark.parametrize(
    ("age_s", "accepted"), [(0, True), (300, True), (301, False), (-300, True), (-301, False), (10**9, False)]
)
def test_old_and_future_requests_are_refused(age_s: int, accepted: bool) -> None:
    """A captured request is good for five minutes, and a clock may be five minutes off."""
    assert TOLERANCE_S == 300
    secret = new_secret()
    signature = sign(ID, NOW - age_s, BODY, [secret])
    assert Verifier([secret]).verify(ID, str(NOW - age_s), signature, BODY, NOW) == accepted


@pytest.mark.parametrize("header", ["id", "timestamp", "signatures"])
@pytest.mark.parametrize("value", [None, ""])
def test_every_header_is_needed(header: str, value: str | None) -> None:
    """A missing or empty header is a refusal, not an error."""
    secret = new_secret()
    given_ = {"id": ID, "timestamp": str(NOW), "signatures": sign(ID, NOW, BODY, [secret]), header: value}
    assert not Verifier([secret]).verify(given_["id"], given_["timestamp"], given_["signatures"], BODY, NOW)


@given(
    timestamp=st.one_of(st.text(max_size=20), st.just(str(NOW)), st.just("9" * 5000), st.just("1.8e9"), st.just("-1")),
    signatures=st.one_of(st.text(max_size=60), st.just("v1,"), st.just("v1"), st.just("v1,A v1a,A ," + " " * 50)),
)
def test_garbage_is_refused_quietly(timestamp: str, signatures: str) -> None:
    """No header value raises, and none of them passes."""
    for key in (VECTOR_SECRET, public_key(new_private_key())):
        assert not Verifier([key]).verify(ID, timestamp, signatures, BODY, NOW)


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_",
        "",
        "whsec_not base64!",
        "whsec_" + b64encode(b"x" * 23).decode(),
        "whsec_" + b64encode(b"x" * 65).decode(),
        "whsk_AAAA",
    ],
)
def test_bad_secrets_are_refused_when_the_signer_is_built(secret: str) -> None:
    """A secret of the wrong form is a ValueError at once, not a bad signature later."""
    with pytest.raises(ValueError, match="webhook"):
        Signer([secret])


def test_a_signer_needs_a_secret() -> None:
    """An endpoint without a secret is never sent unsigned."""
    with pytest.raises(ValueError, match="at least one"):
        Signer([])
