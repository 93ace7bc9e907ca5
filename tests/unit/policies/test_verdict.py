"""Laws of the verdict on a response."""

from datetime import UTC, datetime

import pytest

from policies.verdict import Delivered, Failed, Gone, judge

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)


@pytest.mark.parametrize("retry_after", [None, "60"])
def test_any_2xx_is_delivered(retry_after: str | None) -> None:
    """Every 2xx is a success, also an unknown one (P-21)."""
    assert all(judge(status, None, retry_after, NOW) == Delivered() for status in range(200, 300))


def test_410_is_gone() -> None:
    """410 makes the delivery dead at once, with the code `endpoint_gone`."""
    verdict = judge(410, None, "60", NOW)
    assert isinstance(verdict, Gone)
    assert verdict.code == "endpoint_gone"


def test_every_other_status_fails_with_its_own_code() -> None:
    """Every status except 2xx and 410 fails with a code that contains it; Retry-After counts for 429 and 503."""
    for status in [*range(100, 200), *range(300, 410), *range(411, 1000)]:
        verdict = judge(status, None, "90", NOW)
        assert isinstance(verdict, Failed)
        assert verdict.code == f"http_{status}"
        assert str(status) in verdict.why
        assert verdict.retry_after_s == (90 if status in {429, 503} else None)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirect_is_a_failure(status: int) -> None:
    """A redirect is a failure, and its text says that redirects are not followed."""
    verdict = judge(status, None, None, NOW)
    assert isinstance(verdict, Failed)
    assert "never followed" in verdict.why


@pytest.mark.parametrize("header", ["soon", "-5", "Sat, 21 Nov 2020 02:00:00 GMT", None])
def test_bad_retry_after_counts_as_absent(header: str | None) -> None:
    """Invalid, negative and past values do not change the schedule."""
    verdict = judge(503, None, header, NOW)
    assert isinstance(verdict, Failed)
    assert verdict.retry_after_s is None


@pytest.mark.parametrize("error", ["timeout", "tls_error", "response_too_large", "unknown_code"])
@pytest.mark.parametrize("status", [None, 200, 410, 503])
def test_an_error_overrides_the_status(error: str, status: int | None) -> None:
    """A status with an incomplete body is neither a success nor a 410 that disables the endpoint."""
    verdict = judge(status, error, "90", NOW)
    assert isinstance(verdict, Failed)
    assert verdict.code == error
    assert verdict.why
    assert verdict.retry_after_s is None


def test_a_status_or_an_error_is_required() -> None:
    """Without a status and an error, `judge` raises ValueError."""
    with pytest.raises(ValueError, match="status or an error"):
        judge(None, None, None, NOW)
