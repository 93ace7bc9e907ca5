"""Links: nobody can make one, and nobody can read one."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from products.pages.links import Link, seal, unseal
from products.pages.render_tokens import Kind
from spine.kernel.errors import NotFound
from spine.kernel.vault import Vault

KEY = os.urandom(32)
VAULT = Vault([KEY])
LINK = Link(
    "wsp_01J9X0000000000000000000AA", "org_01J9X0000000000000000000AA", "test", "tkt_01J9X0000000000000000000AA"
)
TOKEN = seal(VAULT, Kind.FORM, "help", LINK)


def test_a_link_leads_to_what_it_was_made_for() -> None:
    """A link opens for its kind and slug, also after the installation's key was rotated."""
    assert unseal(VAULT, Kind.FORM, "help", TOKEN) == LINK
    assert unseal(Vault([os.urandom(32), KEY]), Kind.FORM, "help", TOKEN) == LINK


def test_a_link_shows_no_id() -> None:
    """No id stands in the link, and two links to the same thing differ."""
    assert LINK.id not in TOKEN
    assert LINK.workspace_id not in TOKEN
    assert seal(VAULT, Kind.FORM, "help", LINK) != TOKEN


@pytest.mark.parametrize(("kind", "slug"), [(Kind.BOOKING, "help"), (Kind.FORM, "other")])
def test_a_link_is_bound_to_its_page(kind: Kind, slug: str) -> None:
    """A link of one page leads nowhere under another."""
    with pytest.raises(NotFound):
        unseal(VAULT, kind, slug, TOKEN)


@given(st.integers(0, 500), st.sampled_from("0a-_Z="))
def test_a_changed_link_leads_nowhere(at: int, char: str) -> None:
    """A link with a character changed, added or missing is not found."""
    at %= len(TOKEN) - 1  # the last character has bits that stand for nothing
    for changed in (TOKEN[:at] + char + TOKEN[at + 1 :], TOKEN[:at], TOKEN[:at] + char + TOKEN[at:]):
        if changed != TOKEN:
            with pytest.raises(NotFound):
                unseal(VAULT, Kind.FORM, "help", changed)


@given(st.text(max_size=400))
def test_any_text_leads_nowhere(text: str) -> None:
    """Whatever stands in the place of a link is not found, and never an error."""
    with pytest.raises(NotFound):
        unseal(VAULT, Kind.FORM, "help", text)
