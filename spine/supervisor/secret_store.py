"""The secrets of `make up`: created once, stored in the data directory, readable by its owner alone."""

import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from spine.supervisor.command import StartError


def read(path: Path) -> dict[str, str]:
    """Return the secrets in the file; empty if there is no file. Raises StartError if it cannot be read."""
    try:
        return cast("dict[str, str]", json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StartError(f"cannot read {path}: {error}") from error


def write(path: Path, content: str) -> None:
    """Write a file of mode 0600 atomically."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load_or_create_secrets(path: Path) -> Mapping[str, str]:
    """Return the encryption key and the operator's token of this data directory. The first call creates them."""
    secrets_by_name = read(path)
    factories: dict[str, Callable[[], str]] = {
        "SPINE_ENCRYPTION_KEY": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
        "SPINE_OPERATOR_TOKEN": lambda: secrets.token_urlsafe(32),
    }
    missing = {name: create() for name, create in factories.items() if name not in secrets_by_name}
    if missing:
        secrets_by_name |= missing
        write(path, json.dumps(secrets_by_name, indent=2) + "\n")
    return secrets_by_name
