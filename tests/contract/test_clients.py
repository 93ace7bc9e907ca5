"""Typed clients: generated from the documents without a warning, checked by their type checkers, and used for real calls."""

import importlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import openapi_python_client
import pytest
from openapi_python_client.config import Config, ConfigFile, MetaType

from products.openapi import DIRECTORY
from tests.api import Account, Organisation, unique_key
from tests.contract.specification import OPERATIONS
from tests.servers import ROOT

NAMES: Final = sorted(path.stem for path in DIRECTORY.glob("*.json"))
TYPESCRIPT: Final = ROOT / "tests/contract/typescript"
STRICT: Final = """\
[mypy]
strict = true
[mypy-spine_client.client]
disable_error_code = arg-type
"""
"""mypy's settings for a generated client. `client.py` is a template of the generator and has its fault: `*args: object`."""


def generate(name: str, package: str, directory: Path) -> list[Any]:
    """Write a Python client of a document; return the generator's warnings and errors."""
    config = Config.from_sources(
        ConfigFile(package_name_override=package, post_hooks=[]),
        MetaType.NONE,
        document_source=DIRECTORY / f"{name}.json",
        file_encoding="utf-8",
        overwrite=True,
        output_path=directory / package,
    )
    return list(openapi_python_client.generate(config=config))


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the Python client of the whole suite."""
    directory = tmp_path_factory.mktemp("clients")
    assert generate("spine", "spine_client", directory) == []
    return directory


@pytest.fixture
def client(generated: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The generated package, imported."""
    monkeypatch.syspath_prepend(str(generated))
    yield importlib.import_module("spine_client")
    for name in [name for name in sys.modules if name.partition(".")[0] == "spine_client"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "spine"])
def test_a_python_client_is_generated_without_a_warning(name: str, tmp_path: Path) -> None:
    """openapi-python-client understands all of each product's document."""
    assert generate(name, "client", tmp_path) == []


def test_every_operation_is_a_function_of_the_client(generated: Path) -> None:
    """No operation is left out, and its function is named by its operationId."""
    functions = {path.stem for path in generated.glob("spine_client/api/*/*.py")}
    assert {operation.spec["operationId"] for operation in OPERATIONS} <= functions


def test_the_python_client_is_typed(generated: Path) -> None:
    """The client of the suite, which has all operations and models, is accepted by mypy --strict."""
    (generated / "mypy.ini").write_text(STRICT)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--config-file", "mypy.ini", "--no-incremental", "-p", "spine_client"],
        cwd=generated,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def test_the_python_client_calls_the_api(client: ModuleType, org: Organisation) -> None:
    """A client makes a contact, reads it in a list, and gets an error as the documented model."""
    account: Account = org.test
    contacts = importlib.import_module("spine_client.api.contacts")
    models = importlib.import_module("spine_client.models")
    for name in ("create_contact", "list_contacts", "get_contact"):
        importlib.import_module(f"{contacts.__name__}.{name}")
    with client.AuthenticatedClient(
        base_url=account.url, token=account.key, httpx_args={"trust_env": False}
    ) as connection:
        body = models.ContactCreate(name="Priya Raghavan", phone="+910000000000")
        made = contacts.create_contact.sync(client=connection, body=body, idempotency_key=unique_key())
        listed = contacts.list_contacts.sync(client=connection, limit=5)
        missing = contacts.get_contact.sync(id="ctc_01J9XQ4T0V8Y3K6M2N5P7R9S1A", client=connection)
    assert isinstance(made, models.ContactOut)
    assert made.phone_e164 == "+910000000000"
    assert [contact.id for contact in listed.data] == [made.id]
    assert listed.has_more is False
    assert isinstance(missing, models.Error)
    assert (missing.status, missing.code) == (404, "not_found")


OPENAPI_TYPESCRIPT: Final = TYPESCRIPT / "node_modules/.bin/openapi-typescript"
TSC: Final = TYPESCRIPT / "node_modules/.bin/tsc"
OPTIONAL_DEFAULTS: Final = "--default-non-nullable=false"
"""Fields of a request that have a default may be left out (docs/clients.md)."""
needs_typescript = pytest.mark.skipif(
    not (TYPESCRIPT / "node_modules").is_dir() or shutil.which("node") is None,
    reason="needs Node.js and `npm ci` in tests/contract/typescript",
)


@needs_typescript
@pytest.mark.parametrize("name", NAMES)
def test_a_typescript_client_is_generated_and_typed(name: str, tmp_path: Path) -> None:
    """openapi-typescript understands each document without a warning, and tsc --strict accepts its types."""
    types = tmp_path / f"{name}.d.ts"
    made = subprocess.run(
        [OPENAPI_TYPESCRIPT, DIRECTORY / f"{name}.json", "-o", types, OPTIONAL_DEFAULTS],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    assert not re.search("warn|error|⚠|✘", made.stdout + made.stderr, re.IGNORECASE), made.stdout + made.stderr
    subprocess.run([TSC, "--strict", "--noEmit", types], check=True)


@needs_typescript
def test_the_typescript_client_calls_the_api(org: Organisation, tmp_path: Path) -> None:
    """A program that tsc --strict accepts makes a contact and reads it in a list, through the generated types."""
    for path in ("call.ts", "package.json", "tsconfig.json"):
        shutil.copy(TYPESCRIPT / path, tmp_path)
    (tmp_path / "node_modules").symlink_to(TYPESCRIPT / "node_modules")
    subprocess.run(
        [OPENAPI_TYPESCRIPT, DIRECTORY / "crm.json", "-o", tmp_path / "crm.ts", OPTIONAL_DEFAULTS],
        check=True,
        capture_output=True,
    )
    subprocess.run([TSC, "--project", tmp_path], check=True)
    done = subprocess.run(
        ["node", tmp_path / "call.js", org.test.url, org.test.key], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["+910000000000", "1", "not_found"]
