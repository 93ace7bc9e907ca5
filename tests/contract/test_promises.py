"""`docs/promises.md`: every promise of the developer pages has its test."""

import ast
import re
from collections.abc import Iterator
from typing import Final

import pytest

from tests.servers import ROOT

COUNTS: Final = {"P": 27, "W": 14, "C": 16, "T": 15, "N": 14, "K": 13}
"""The number of promises of each page."""


def rows() -> Iterator[tuple[str, str, list[str]]]:
    """Yield each row's id, promise and tests."""
    for line in (ROOT / "docs/promises.md").read_text().splitlines():
        if re.match(r"\| [A-Z]-", line):
            id, promise, tests = (cell.strip() for cell in line.strip("|").split("|"))
            yield id, promise, re.findall(r"`([^`]+)`", tests)


ROWS: Final = list(rows())


def test_each_promise_stands_once() -> None:
    """No id has two rows, and every id is one of the pages'."""
    ids = [id for id, _, _ in ROWS]
    known = [f"{page}-{number:02}" for page, count in COUNTS.items() for number in range(1, count + 1)]
    assert len(ids) == len(set(ids))
    assert set(ids) <= set(known)


def test_no_promise_is_left_out() -> None:
    """Every promise has a row."""
    ids = {id for id, _, _ in ROWS}
    known = [f"{page}-{number:02}" for page, count in COUNTS.items() for number in range(1, count + 1)]
    assert [id for id in known if id not in ids] == []


@pytest.mark.parametrize(("id", "promise", "tests"), ROWS, ids=[row[0] for row in ROWS])
def test_the_tests_of_a_promise_exist(id: str, promise: str, tests: list[str]) -> None:
    """A row has a sentence and at least one test, and each is a function of that file."""
    assert promise, id
    assert tests, id
    for test in tests:
        path, _, name = test.partition("::")
        assert (ROOT / path).is_file(), f"{path} of {id} does not exist"
        tree = ast.parse((ROOT / path).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, f"{path} has no test {name}, which {id} names"
