"""Secrets that `make up` makes once and keeps in the data directory, readable by its owner alone."""

import base64
import json
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import cast

from spine.supervisor.command import StartError


def read(path: Path) -> dict[str, str]:
    """What the file keeps; empty when there is none yet. Raises StartError when it cannot be read."""
    try:
        return cast("dict[str, str]", json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise StartError(f"cannot read {path}: {error}") from error


def write(path: Path, content: str) -> None:
    """Write a file of mode 0600, whole or not at all."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def load_or_create_secrets(path: Path) -> Mapping[str, str]:
    """The encryption key and the operator's token of this data directory, made at the first call."""
    kept = read(path)
    made: dict[str, Callable[[], str]] = {
        "SPINE_ENCRYPTION_KEY": lambda: base64.b64encode(secrets.token_bytes(32)).decode(),
        "SPINE_OPERATOR_TOKEN": lambda: secrets.token_urlsafe(32),
    }
    missing = {name: make() for name, make in made.items() if name not in kept}
    if missing:
        kept |= missing
        write(path, json.dumps(kept, indent=2) + "\n")
    return kept
