"""Schemathesis along the document's links: what was made is there, whatever is done to it, until it is deleted."""

import re
from collections import Counter
from typing import Any, Final

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.generation.stateful import run_state_machine_as_test
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ensure_resource_availability,
    response_schema_conformance,
    status_code_conformance,
    use_after_free,
)

from products.openapi import DIRECTORY
from tests.api import Account, Api, unique_key
from tests.contract.specification import OPERATIONS, Operation
from tests.one_of_each import OneOfEach, create_one_of_each

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    use_after_free,
    ensure_resource_availability,
]
ONLY_DECLARED: Final = {
    "generation": {"mode": "positive"},
    "phases": {"stateful": {"inference": {"algorithms": []}}},
}
"""No links but those of the document, and no calls that are wrong on purpose: test_conformance.py makes those."""
MAKING: Final = [operation for operation in OPERATIONS if "links" in operation.spec["responses"].get("201", {})]


def _another(operation: Operation, existing: OneOfEach) -> Any:
    """A body that makes one more; what a workspace has once gets a name of its own."""
    one = existing.by_collection
    word = f"a{unique_key()}"
    own = {
        "POST /v1/event_types": {"name": f"own.{word}"},
        "POST /v1/users": {"email": f"{word}@example.com"},
        "POST /notifications/v1/templates": {"slug": word},
        "POST /calendar/v1/services": {"slug": word},
        "POST /calendar/v1/appointments": {"slot_id": one["slots"], "contact_id": one["contacts"], "service": None},
        "POST /calendar/v1/waitlist_entries": {
            "service": one["service"],
            "resource_id": None,
            "contact_id": one["contacts"],
        },
        "POST /calendar/v1/booking_pages": {"slug": word, "services": [one["service"]]},
        "POST /tickets/v1/tickets": {"contact_id": one["contacts"]},
        "POST /tickets/v1/routing_rules": {"topic": word, "owner_id": one["users"]},
        "POST /tickets/v1/sla_policies": {"topic": word},
        "POST /tickets/v1/forms": {"slug": word},
        "POST /crm/v1/leads": {"contact_id": one["contacts"]},
        "POST /crm/v1/interests": {"lead_id": one["leads"], "catalog_item_id": one["catalog_items"]},
        "POST /crm/v1/deals": {"contact_id": one["contacts"]},
        "POST /works/v1/projects": {"owner_id": one["users"]},
        "POST /works/v1/milestones": {"project_id": one["projects"]},
        "POST /works/v1/tasks": {"project_id": one["projects"], "assignee_id": one["users"]},
    }
    return operation.body() | own.get(str(operation), {})


@pytest.fixture(scope="module")
def account(api: Api) -> Account:
    """The workspace that all calls are made in."""
    return api.sign_up().test


@pytest.fixture(scope="module")
def existing(account: Account, api: Api) -> OneOfEach:
    """What the workspace has, for bodies that name it."""
    return create_one_of_each(account, api.database_url)


@pytest.mark.parametrize("making", MAKING, ids=str)
def test_what_is_made_is_there_until_it_is_deleted(
    making: Operation, api: Api, account: Account, existing: OneOfEach
) -> None:
    """Along any way of links nothing that was made is missing, and nothing deleted is read again (P-22)."""
    document = schemathesis.openapi.from_path(
        DIRECTORY / "spine.json", config=schemathesis.Config.from_dict(ONLY_DECLARED)
    ).include(path_regex=f"^{re.escape(making.path)}(/{{id}}|$)")
    answers: Counter[tuple[str, int]] = Counter()

    class Story(document.as_state_machine()):  # type: ignore[misc]  # a class made of the document
        def before_call(self, case: schemathesis.Case[Any]) -> None:
            if case.operation.label == str(making):
                case.body = _another(making, existing)
            case.headers["Authorization"] = f"Bearer {account.key}"
            if "Idempotency-Key" in case.headers:
                case.headers["Idempotency-Key"] = unique_key()

        def get_call_kwargs(self, _: schemathesis.Case[Any]) -> dict[str, Any]:
            return {"base_url": api.url}

        def validate_response(self, response: Any, case: schemathesis.Case[Any], **sent: Any) -> None:
            answers[case.operation.label, response.status_code] += 1
            case.validate_response(response, checks=CHECKS, transport_kwargs=sent, recorder=self.recorder)

    run_state_machine_as_test(
        Story,
        settings=settings(
            max_examples=5,
            stateful_step_count=10,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        ),
    )
    assert {status for label, status in answers if label == str(making)} == {201}
    assert any(status == 200 for label, status in answers if label != str(making))
