"""The error tree: one body format, stable codes."""

import json
from collections.abc import Iterator

import pytest

from spine.kernel import errors
from spine.kernel.errors import Error, FieldError, InvalidBody, NotFound, SpineError, TooManyRequests, Unprocessable


def subclasses(of: type[SpineError]) -> Iterator[type[SpineError]]:
    """A class and all its subclasses."""
    yield of
    for subclass in of.__subclasses__():
        yield from subclasses(subclass)


KINDS = sorted(
    {kind for kind in subclasses(SpineError) if kind.__module__ == errors.__name__}, key=lambda kind: kind.__name__
)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_a_problem_document(kind: type[SpineError]) -> None:
    """The body has type, title, status, detail, code and request_id, and no empty member (RFC 9457, X16)."""
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


def test_optional_members_are_in_the_problem() -> None:
    """The problem holds the param, the fields at fault and the allowed values, if they are given."""
    error = Unprocessable(
        "no", code="c", param="a.b", errors=[FieldError(param="a.b", code="x", detail="y")], allowed=["z"]
    )
    problem = json.loads(error.body("req_1"))
    assert (problem["param"], problem["allowed"]) == ("a.b", ["z"])
    assert problem["errors"] == [{"param": "a.b", "code": "x", "detail": "y"}]


def test_only_results_of_rules_are_stored() -> None:
    """An Idempotency-Key replays the 404, 409 and 422 of a rule, but no refusal from before the work (X17)."""
    stored = {kind.__name__ for kind in KINDS if not issubclass(kind, TooManyRequests) and kind().is_result}
    assert stored == {"NotFound", "Conflict", "IllegalTransition", "Unprocessable"}
    assert not InvalidBody().is_result
    assert not TooManyRequests(retry_after_s=1).is_result


def test_not_found_has_one_text() -> None:
    """The default detail gives no reason."""
    assert NotFound().detail == "There is no such thing here."
