"""Schemathesis against the running API: every response conforms to the document."""

import re
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import CheckFunction, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from products.openapi import DIRECTORY
from tests.api import Account, Api, unique_key
from tests.one_of_each import OneOfEach, create_one_of_each

CHECKS: list[CheckFunction] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
    missing_required_header,
    ignored_auth,
    unsupported_method,
]
SIBLINGS = {"/v1/events/batch", "/v1/events/types", "/notifications/v1/messages/batch", "/tickets/v1/tickets/queue"}
"""Paths that other methods match as the path of a resource with that id: 404, not 405."""

schema = schemathesis.openapi.from_path(DIRECTORY / "spine.json")
# Every call has our key. Schemathesis must not expect an error where it omitted its own key.
schema.config.generation.update(with_security_parameters=False)


@pytest.fixture(scope="module")
def account(api: Api) -> Account:
    """The workspace of all calls."""
    return api.sign_up().test


@pytest.fixture
def existing(account: Account, api: Api) -> OneOfEach:
    """The resources that exist for the calls of one operation."""
    return create_one_of_each(account, api.database_url)


@schema.parametrize()
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
def test_every_operation_answers_as_documented(
    case: schemathesis.Case[Any], api: Api, account: Account, existing: OneOfEach
) -> None:
    """No response has a 5xx, an undocumented status or content type, or a body that is invalid for its schema (P-22)."""
    if "Idempotency-Key" in case.headers:
        case.headers["Idempotency-Key"] = unique_key()
    for name, value in case.path_parameters.items():
        if re.fullmatch(r"[a-z]+_[0-9A-HJKMNP-TV-Z]{26}", str(value)):  # replaced by an id that exists
            case.path_parameters[name] = existing.path(case.path).split("/")[case.path.split("/").index(f"{{{name}}}")]
    checks = [check for check in CHECKS if check is not unsupported_method or case.path not in SIBLINGS]
    case.call_and_validate(base_url=api.url, headers={"Authorization": f"Bearer {account.key}"}, checks=checks)
