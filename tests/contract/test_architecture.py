"""The laws of the source tree that `ARCHITECTURE.md` describes; the import contracts are in pyproject.toml."""

import io
import shutil
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent
PACKAGES: Final = ("policies", "products", "providers", "spine", "workers")
MAX_LINES: Final = 250
HOT_SQL: Final = ("spine/webhooks/queries.py", "spine/kernel/migrations/versions/")
"""Named statements and migrations: SQL that is read as a whole."""
VAGUE: Final = {"utils", "util", "common", "helpers", "helper", "base", "misc"}
PRIVATE_WORDS: Final = {
    "bell", "bells", "cargo", "desk", "gate", "haste", "heap", "keeper", "keychain", "lane", "lanes", "leftovers", "roster",
    "stillborn", "upkeep", "wishes",
}  # fmt: skip
"""Words of our own that were replaced by terms of the field; newcomers search for the terms."""


def modules() -> Iterator[Path]:
    """Every module of the product."""
    for package in PACKAGES:
        yield from sorted((ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    """The path as documents write it."""
    return path.relative_to(ROOT).as_posix()


def test_modules_are_short() -> None:
    """No module has more than 250 lines, except hot SQL."""
    sizes = {relative(path): len(path.read_text().splitlines()) for path in modules()}
    assert {name: size for name, size in sizes.items() if size > MAX_LINES and not name.startswith(HOT_SQL)} == {}


def test_no_module_has_a_vague_name() -> None:
    """A module is named by what is in it."""
    assert [relative(path) for path in modules() if VAGUE & set(path.stem.split("_"))] == []


def test_names_are_terms_of_the_field() -> None:
    """No identifier is one of the private words."""
    found = [
        f"{relative(path)}:{token.start[0]}: {token.string}"
        for path in modules()
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline)
        if token.type == tokenize.NAME and PRIVATE_WORDS & set(token.string.lower().split("_"))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("products/tickets/threads.py", "products.works.tasks"),
        ("spine/kernel/ids.py", "spine.directory.users"),
        ("spine/webhooks/patterns.py", "spine.notifications.rendering"),
        ("spine/directory/users.py", "spine.webhooks.patterns"),
        ("policies/retry.py", "spine.kernel.ids"),
    ],
)
def test_an_import_against_the_layers_is_refused(importer: str, imported: str, tmp_path: Path) -> None:
    """`lint-imports` fails when a product imports one above it, or a lower layer imports a higher one."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for product, module in (("works", "tasks"), ("tickets", "threads")):
        (tmp_path / "products" / product).mkdir(exist_ok=True)
        (tmp_path / "products" / product / "__init__.py").touch()
        (tmp_path / "products" / product / f"{module}.py").touch()
    assert _lint_imports(tmp_path).returncode == 0
    with (tmp_path / importer).open("a") as module_file:
        module_file.write(f"\nimport {imported}\n")
    refused = _lint_imports(tmp_path)
    assert refused.returncode == 1
    assert imported in refused.stdout


def _lint_imports(directory: Path) -> "subprocess.CompletedProcess[str]":
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [program, "--no-logo", "--no-cache"], cwd=directory, capture_output=True, text=True, check=False
    )
