"""Documents: named paths exist, decisions are short, lock files have no addresses."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("dashboards/*.md")])
_PATH = re.compile(r"`((?:spine|policies|providers|products|workers|dashboards|tests|docs|bench|openapi)/[\w./-]*)`")
_GENERATED = {"bench/report/", "bench/results.json"}


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_named_in_documents_exist(document: Path) -> None:
    """Every path in backticks in a document exists."""
    missing = [
        path
        for path in _PATH.findall(document.read_text())
        if path not in _GENERATED and not (ROOT / path.rstrip("/")).exists()
    ]
    assert missing == []


def test_decisions_fit_on_a_page() -> None:
    """A decision has at most 60 lines. Decisions are numbered without a gap."""
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    assert [path.name for path in decisions if len(path.read_text().splitlines()) > 60] == []


def test_the_project_names_no_download_address() -> None:
    """No lock file contains a download address."""
    for lock in ROOT.glob("requirements*.lock"):
        assert not re.search(r"https?://", lock.read_text()), lock.name
