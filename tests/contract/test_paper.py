"""What the documents name must exist."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
_DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("dashboards/*.md")])
_PATH = re.compile(r"`((?:spine|policies|providers|products|workers|dashboards|tests|docs|bench|openapi)/[\w./-]*)`")
_MADE_BY_RUNS = {"bench/report/", "bench/results.json"}


@pytest.mark.parametrize("document", _DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_paths_named_in_documents_exist(document: Path) -> None:
    """A path that a document names in backticks is there."""
    missing = [
        path
        for path in _PATH.findall(document.read_text())
        if path not in _MADE_BY_RUNS and not (ROOT / path.rstrip("/")).exists()
    ]
    assert missing == []


def test_decisions_fit_on_a_page() -> None:
    """A decision is at most a page: 60 lines, numbered without a gap."""
    decisions = sorted((ROOT / "docs/adr").glob("*.md"))
    assert [int(path.name[:4]) for path in decisions] == list(range(1, len(decisions) + 1))
    assert [path.name for path in decisions if len(path.read_text().splitlines()) > 60] == []


def test_the_project_names_no_download_address() -> None:
    """No lock file names where packages are downloaded from."""
    for lock in ROOT.glob("requirements*.lock"):
        assert not re.search(r"https?://", lock.read_text()), lock.name
