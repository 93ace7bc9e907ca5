"""The fields that both pages ask for."""

import pytest

from products.pages.visitor import HONEYPOT, Errors, Visitor, read_visitor


def read(**fields: str) -> tuple[Visitor, Errors]:
    """Read the fields of a visitor."""
    errors: Errors = {}
    return read_visitor(fields, errors), errors


def test_addresses_are_normalised() -> None:
    """Phone and e-mail address are read as contacts are, so the visitor is matched (T-15)."""
    visitor, errors = read(name=" Meera ", phone="098765 43210", email="Meera@Example.COM")
    assert errors == {}
    assert visitor == Visitor("Meera", "+919876543210", "meera@example.com")


@pytest.mark.parametrize("given", [{"phone": "+91 98765 43210"}, {"email": "a@example.com"}])
def test_one_way_to_reach_somebody_is_enough(given: dict[str, str]) -> None:
    """A phone number or an e-mail address is needed, not both."""
    assert read(name="Meera", **given)[1] == {}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"name": "", "email": "a@example.com"}, "name"),
        ({"name": "x" * 201, "email": "a@example.com"}, "name"),
        ({"name": "A"}, "email"),
        ({"name": "A", "email": "nobody"}, "email"),
        ({"name": "A", "email": "x" * 250 + "@example.com"}, "email"),
        ({"name": "A", "phone": "12"}, "phone"),
        ({"name": "A", "phone": "call me"}, "phone"),
        ({"name": "A", "phone": "1" * 41}, "phone"),
        ({"name": "A", "email": "a@example.com", HONEYPOT: "https://spam.example"}, HONEYPOT),
    ],
)
def test_a_wrong_field_is_named_in_a_sentence(fields: dict[str, str], wrong: str) -> None:
    """What is wrong is said at its field, and nowhere else, as a sentence."""
    _, errors = read(**fields)
    assert list(errors) == [wrong]
    assert errors[wrong][0].isupper()
    assert errors[wrong].endswith(".")
