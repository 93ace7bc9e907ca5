"""The catalogue of events and resources of the whole suite."""

import re
from typing import Any

import jsonschema
import pytest

from products.app import build
from products.catalogue import CATALOGUE, PRODUCTS, RESOURCES
from spine.kernel.ids import PREFIXES
from spine.webhooks.schema_examples import example


@pytest.mark.parametrize("name", CATALOGUE.types)
def test_a_type_has_a_proper_name_and_a_sentence(name: str) -> None:
    """A name is dotted lower-case words. Its text is one line that says when the event is emitted."""
    assert re.fullmatch(r"[a-z][a-z0-9_]*(\.[a-z0-9_]+)+", name)
    text = CATALOGUE.types[name].text
    assert text.endswith(".")
    assert "\n" not in text


def test_every_type_stands_in_one_product() -> None:
    """Each event type is in the OpenAPI document of exactly one product, unless products share it; the suite's has all."""
    documents = {name: document() for name, document in build().state.documents.items()}
    types = [name for product in PRODUCTS for name in documents[product]["webhooks"]]
    own = [name for name in types if name not in CATALOGUE.shared]
    assert sorted(own) == sorted(CATALOGUE.types.keys() - CATALOGUE.shared)
    assert all(types.count(name) > 1 for name in CATALOGUE.shared)
    assert sorted(documents["spine"]["webhooks"]) == sorted(CATALOGUE.types)


def test_own_families_are_reserved() -> None:
    """A type is reserved if its first word is one of our families."""
    for family in CATALOGUE.families:
        assert CATALOGUE.is_reserved(f"{family}.anything.else")
    assert not CATALOGUE.is_reserved("order.user.created")


def test_every_resource_has_its_prefix_and_its_states_are_closed() -> None:
    """Every noun has an id prefix, and every transition leads to a state of the table."""
    for resource in RESOURCES:
        assert PREFIXES[resource.noun] == resource.prefix
        for targets in resource.states.values():
            assert targets <= resource.states.keys()


@pytest.mark.parametrize("event", CATALOGUE.types.values(), ids=lambda event: event.name)
def test_every_event_of_the_suite_has_an_example(event: Any) -> None:
    """The example of a type is valid for its schema in the catalogue."""
    schema = event.data.model_json_schema(mode="serialization")
    jsonschema.Draft202012Validator(schema).validate(example(schema))
