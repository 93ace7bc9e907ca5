"""Render tokens: only a page that was rendered lately can be submitted."""

import os
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.pages.render_tokens import MAX_AGE, Kind, Refused, Render, RenderTokens
from spine.kernel.errors import BadRequest
from spine.kernel.idempotency import KEY_TTL, read_key
from spine.kernel.vault import Vault

TOKENS = RenderTokens(Vault([os.urandom(32)]))
NOW = datetime(2026, 11, 26, 9, 0, tzinfo=UTC)


def test_a_token_is_good_for_its_page_until_it_expires() -> None:
    """A token is taken until MAX_AGE, and not after it."""
    token = TOKENS.issue(Kind.FORM, "help", NOW)
    render = TOKENS.read(token, Kind.FORM, "help", NOW + MAX_AGE - timedelta(seconds=1))
    assert isinstance(render, Render)
    assert render.issued_at == NOW
    assert TOKENS.read(token, Kind.FORM, "help", NOW + MAX_AGE) is Refused.EXPIRED
    assert TOKENS.read(token, Kind.FORM, "help", NOW - timedelta(minutes=2)) is Refused.EXPIRED


def test_each_rendering_has_a_key_of_its_own_that_no_caller_can_send() -> None:
    """Keys differ from rendering to rendering, and no Idempotency-Key header can hold one."""
    keys = set()
    for _ in range(50):
        render = TOKENS.read(TOKENS.issue(Kind.BOOKING, "salon", NOW), Kind.BOOKING, "salon", NOW)
        assert isinstance(render, Render)
        keys.add(render.key)
        with pytest.raises(BadRequest):
            read_key(render.key)
    assert len(keys) == 50


@pytest.mark.parametrize(("kind", "slug"), [(Kind.BOOKING, "help"), (Kind.FORM, "hel"), (Kind.FORM, "help/x")])
def test_a_token_is_bound_to_its_page(kind: Kind, slug: str) -> None:
    """The token of one page is none for another kind of page, or another slug."""
    assert TOKENS.read(TOKENS.issue(Kind.FORM, "help", NOW), kind, slug, NOW) is Refused.FORGED


def test_a_token_is_bound_to_the_installation() -> None:
    """A token that another key signed is none."""
    other = RenderTokens(Vault([os.urandom(32)]))
    assert TOKENS.read(other.issue(Kind.FORM, "help", NOW), Kind.FORM, "help", NOW) is Refused.FORGED


@given(st.integers(0, 200), st.sampled_from("0a-_.Z"))
def test_a_changed_token_is_forged(at: int, char: str) -> None:
    """A token with any one character changed, or cut anywhere, is refused."""
    token = TOKENS.issue(Kind.FORM, "help", NOW)
    at %= len(token)
    changed = token[:at] + char + token[at + 1 :]
    assert changed == token or TOKENS.read(changed, Kind.FORM, "help", NOW) is Refused.FORGED
    assert TOKENS.read(token[:at], Kind.FORM, "help", NOW) is Refused.FORGED


@given(st.text(max_size=200))
def test_any_text_is_refused_and_never_an_error(text: str) -> None:
    """Whatever is sent as a token, the answer is a refusal."""
    assert TOKENS.read(text, Kind.FORM, "help", NOW) is Refused.FORGED


def test_no_token_outlives_the_memory_of_its_submission() -> None:
    """A token expires before its idempotency key does, so a page cannot be submitted twice after a day."""
    assert MAX_AGE < KEY_TTL
