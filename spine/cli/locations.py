"""Which installation is meant: its data directory, the API's address, the key to use."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from spine.cli.errors import MISUSED, Failure
from spine.supervisor import secret_store
from spine.supervisor.command import StartError

ROOT = Path(__file__).parent.parent.parent
_ANY_ADDRESS = {"", "0.0.0.0", "::"}  # noqa: S104  read here, not listened on


def data_directory(environ: Mapping[str, str]) -> Path:
    """SPINE_DATA_DIR, else `.spine` here, else the one beside the code, where `make up` keeps it."""
    given = environ.get("SPINE_DATA_DIR")
    if given:
        return Path(given).expanduser()
    context = Path(".spine")
    return context if context.is_dir() else ROOT / ".spine"


def settings_files(environ: Mapping[str, str], words: Sequence[str]) -> tuple[Path, ...]:
    """Files of settings for what the environment leaves open: .env as for `make up`, then what that wrote of itself.

    `spine up` itself must not read the latter: it would take its own Postgres for one that somebody else runs.
    """
    own = data_directory(environ) / "environment"
    wanted = (ROOT / ".env", *(() if tuple(words[:1]) == ("up",) else (own,)))
    return tuple(path for path in wanted if os.access(path, os.R_OK))


def api_url(environ: Mapping[str, str], given: str | None) -> str:
    """--url, SPINE_URL, or the port that the API of this machine listens on. Raises Failure for anything but http(s)."""
    url = given or environ.get("SPINE_URL")
    if not url:
        host = environ.get("SPINE_HTTP_HOST", "")
        host = "127.0.0.1" if host in _ANY_ADDRESS else f"[{host}]" if ":" in host else host
        url = f"http://{host}:{environ.get('SPINE_HTTP_PORT') or 8080}"
    if not is_http(url):
        raise Failure(f"{url} is no address of an API; give it as http://host:port", exit_code=MISUSED)
    return url.rstrip("/")


def is_http(url: str) -> bool:
    """Whether the text is an http or https address with a host, and with a port that there is."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def api_key(environ: Mapping[str, str], given: str | None, live: bool) -> str:
    """--key, SPINE_API_KEY, or the one that `make up` keeps. Raises Failure where there is none, or not of this kind."""
    env = "live" if live else "test"
    key = given or environ.get("SPINE_API_KEY")
    if key:
        if live and not key.startswith("sk_live_"):
            raise Failure("--live was asked for, and the key that was given is no sk_live_ one", exit_code=MISUSED)
        return key
    path = data_directory(environ) / "keys.json"
    try:
        kept = secret_store.read(path).get(f"{env}_key")
    except StartError as error:
        raise Failure(str(error)) from error
    if not kept:
        raise Failure(
            f"no API key: give --key or SPINE_API_KEY. `make up` keeps one in {path}, which holds no {env} key; "
            "with access to the database, `spine keys create --org NAME --email ADDRESS` makes one",
            exit_code=MISUSED,
        )
    return kept
