"""Locate the installation: its data directory, settings files, API address and API key."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from spine.cli.errors import MISUSED, Failure
from spine.supervisor import secret_store
from spine.supervisor.command import StartError

ROOT = Path(__file__).parent.parent.parent
_ANY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104  compared with the setting, not bound


def data_directory(environ: Mapping[str, str]) -> Path:
    """Return SPINE_DATA_DIR, else `.spine` in the current directory, else `.spine` beside the code, which `make up` uses."""
    given = environ.get("SPINE_DATA_DIR")
    if given:
        return Path(given).expanduser()
    local = Path(".spine")
    return local if local.is_dir() else ROOT / ".spine"


def settings_files(environ: Mapping[str, str], arguments: Sequence[str]) -> tuple[Path, ...]:
    """Return the readable settings files, for settings that the environment lacks: .env, then the file of `make up`.

    `spine up` must not read the file of `make up`: it would treat its own Postgres as an external one.
    """
    written = data_directory(environ) / "environment"
    paths = (ROOT / ".env", *(() if tuple(arguments[:1]) == ("up",) else (written,)))
    return tuple(path for path in paths if os.access(path, os.R_OK))


def api_url(environ: Mapping[str, str], given: str | None) -> str:
    """Return --url, else SPINE_URL, else the address of this machine's API. Raises Failure if it is not http or https."""
    url = given or environ.get("SPINE_URL")
    if not url:
        host = environ.get("SPINE_HTTP_HOST", "")
        host = "127.0.0.1" if host in _ANY_ADDRESS else f"[{host}]" if ":" in host else host
        url = f"http://{host}:{environ.get('SPINE_HTTP_PORT') or 8080}"
    if not is_http(url):
        raise Failure(f"{url} is no address of an API; give it as http://host:port", exit_code=MISUSED)
    return url.rstrip("/")


def is_http(url: str) -> bool:
    """Return True for an http or https URL with a host and a valid port."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def api_key(environ: Mapping[str, str], given: str | None, live: bool) -> str:
    """Return --key, else SPINE_API_KEY, else the key that `make up` stores. Raises Failure if it is missing or not live."""
    env = "live" if live else "test"
    key = given or environ.get("SPINE_API_KEY")
    if key:
        if live and not key.startswith("sk_live_"):
            raise Failure("--live was asked for, and the key that was given is no sk_live_ one", exit_code=MISUSED)
        return key
    path = data_directory(environ) / "keys.json"
    try:
        stored = secret_store.read(path).get(f"{env}_key")
    except StartError as error:
        raise Failure(str(error)) from error
    if not stored:
        raise Failure(
            f"no API key: give --key or SPINE_API_KEY. `make up` keeps one in {path}, which holds no {env} key; "
            "with access to the database, `spine keys create --org NAME --email ADDRESS` makes one",
            exit_code=MISUSED,
        )
    return stored
