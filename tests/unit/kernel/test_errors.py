"""The error tree: one shape, stable codes."""

import json
from collections.abc import Iterator

import pytest

from spine.kernel import errors
from spine.kernel.errors import Error, FieldError, InvalidBody, NotFound, SpineError, TooManyRequests, Unprocessable


def tree(of: type[SpineError]) -> Iterator[type[SpineError]]:
    """A class and all below it."""
    yield of
    for below in of.__subclasses__():
        yield from tree(below)


PROVIDER_KINDS = sorted(
    {kind for kind in tree(SpineError) if kind.__module__ == errors.__name__}, key=lambda kind: kind.__name__
)


@pytest.mark.parametrize("kind", PROVIDER_KINDS)
def test_every_error_is_a_problem_document(kind: type[SpineError]) -> None:
    """Type, title, status, detail, code and request_id, and nothing that is empty (RFC 9457, X16)."""
    error = kind(retry_after_s=3) if issubclass(kind, TooManyRequests) else kind()
    problem = json.loads(error.body("req_1"))
    assert problem == {
        "type": f"urn:spine:problem:{error.code}",
        "title": kind.title,
        "status": kind.status,
        "detail": error.detail,
        "code": error.code,
        "request_id": "req_1",
    }
    Error.model_validate(problem)
    assert error.detail


def test_all_that_is_known_is_told() -> None:
    """Param, the fields at fault and what would have been allowed stand in the problem where they are given."""
    error = Unprocessable(
        "no", code="c", param="a.b", errors=[FieldError(param="a.b", code="x", detail="y")], allowed=["z"]
    )
    problem = json.loads(error.body("req_1"))
    assert (problem["param"], problem["allowed"]) == ("a.b", ["z"])
    assert problem["errors"] == [{"param": "a.b", "code": "x", "detail": "y"}]


def test_only_the_results_of_rules_are_kept() -> None:
    """404, 409 and 422 of a rule are what an Idempotency-Key replays; what was refused before any work is not (X17)."""
    kept = {kind.__name__ for kind in PROVIDER_KINDS if not issubclass(kind, TooManyRequests) and kind().is_result}
    assert kept == {"NotFound", "Conflict", "IllegalTransition", "Unprocessable"}
    assert not InvalidBody().is_result
    assert not TooManyRequests(retry_after_s=1).is_result


def test_not_found_has_one_text() -> None:
    """The default says nothing of why."""
    assert NotFound().detail == "There is no such thing here."
