"""The doctor's round, from the settings outwards."""

from collections.abc import Mapping

from spine.cli.doctor.api import reach
from spine.cli.doctor.database import database
from spine.cli.doctor.finding import Finding, fail
from spine.cli.doctor.machine import machine
from spine.cli.doctor.redis import bells
from spine.cli.doctor.settings import Settings, configuration
from spine.cli.errors import Failure
from spine.cli.locations import api_url, data_directory


async def examine(environ: Mapping[str, str], url: str | None) -> list[Finding]:
    """Look at everything that the settings lead to. Changes nothing."""
    settings = Settings()
    findings = list(configuration(settings))
    findings = [*machine(data_directory(environ), settings.work), *findings]
    if settings.database is not None:
        findings += [finding async for finding in database(settings.database.database_url, settings.vault)]
    if settings.wakeups is not None:
        findings += [finding async for finding in bells(settings.wakeups.redis_url)]
    try:
        findings += [finding async for finding in reach(api_url(environ, url))]
    except Failure as failure:
        findings.append(fail("api", failure.detail, "see SPINE_HTTP_HOST and SPINE_HTTP_PORT in .env.example"))
    return findings
