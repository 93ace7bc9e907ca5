"""Run all checks of `spine doctor`, from the settings to the API."""

from collections.abc import Mapping

from spine.cli.doctor.api import check_api
from spine.cli.doctor.database import check_database
from spine.cli.doctor.finding import Finding, fail
from spine.cli.doctor.machine import check_machine
from spine.cli.doctor.redis import check_redis
from spine.cli.doctor.settings import Settings, check_settings
from spine.cli.errors import Failure
from spine.cli.locations import api_url, data_directory


async def run_checks(environ: Mapping[str, str], url: str | None) -> list[Finding]:
    """Check everything that the settings name. Changes nothing."""
    settings = Settings()
    findings = list(check_settings(settings))
    findings = [*check_machine(data_directory(environ), settings.work), *findings]
    if settings.database is not None:
        public_url = settings.http.public_url if settings.http is not None else None
        checks = check_database(settings.database.database_url, settings.vault, public_url)
        findings += [finding async for finding in checks]
    if settings.wakeups is not None:
        findings += [finding async for finding in check_redis(settings.wakeups.redis_url)]
    try:
        findings += [finding async for finding in check_api(api_url(environ, url))]
    except Failure as failure:
        findings.append(fail("api", failure.detail, "see SPINE_HTTP_HOST and SPINE_HTTP_PORT in .env.example"))
    return findings
