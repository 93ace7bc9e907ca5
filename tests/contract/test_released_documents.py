"""The gate against breaking changes: the documents keep what openapi/released/ promises (P-23)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from products.openapi_changes.__main__ import ROOT, changes, release


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the source tree whose documents are released as they are."""
    for package in ("policies", "products", "providers", "spine", "openapi"):
        shutil.copytree(ROOT / package, tmp_path / package)  # compiled modules too: they save seconds
    release(tmp_path)
    return tmp_path


def run(module: str, tree: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a module of the copied tree."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        cwd=tree,
        env=os.environ | {"PYTHONPATH": str(tree)},
        capture_output=True,
        text=True,
        check=False,
    )


def edit(path: Path, old: str, new: str) -> None:
    """Replace a text of a file that has it."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_nothing_that_was_released_is_broken() -> None:
    """No caller and no receiver of the released documents is broken by the present ones."""
    assert list(changes(ROOT)) == []


def test_a_narrowed_validator_fails_the_checks_of_drift_and_of_breaking_changes(tree: Path) -> None:
    """After the edit of one validator the first check names the documents; written into them, it is a breaking change (P-23)."""
    assert run("products.openapi", tree, "--check").returncode == 0
    edit(tree / "spine/kernel/resource.py", "max_length=200, strip", "max_length=199, strip")
    drifted = run("products.openapi", tree, "--check")
    assert drifted.returncode == 1
    for name in ("crm.json", "platform.json", "spine.json"):
        assert name in drifted.stderr
    assert run("products.openapi", tree).returncode == 0
    broken = run("products.openapi_changes", tree)
    assert broken.returncode == 1
    assert "crm: POST /crm/v1/contacts body.name: maxLength was 200, is 199" in broken.stderr


def test_a_lost_document_and_a_lost_error_code_fail_the_gate(tree: Path) -> None:
    """Documents and codes of errors are promises too."""
    edit(tree / "spine/directory/contacts.py", 'code="contact_exists"', 'code="contact_known"')
    (tree / "openapi/crm.json").unlink()
    assert list(changes(tree)) == ["crm: the document is gone", "error codes: contact_exists is gone"]


def test_a_release_takes_the_present_documents(tree: Path) -> None:
    """After a release its documents are the measure; those of the suite's document are in the products' documents."""
    edit(tree / "openapi/crm.json", '"list_contacts"', '"read_contacts"')
    assert run("products.openapi_changes", tree).returncode == 1
    assert run("products.openapi_changes", tree, "--release").returncode == 0
    assert run("products.openapi_changes", tree).returncode == 0
    assert not (tree / "openapi/released/spine.json").exists()
    assert "contact_exists" in json.loads((tree / "openapi/released/error_codes.json").read_text())
