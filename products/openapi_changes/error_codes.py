"""The codes of errors that the source tree raises: callers decide on them, so none may vanish."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_PACKAGES: Final = ("spine", "products")


def error_codes(root: Path) -> list[str]:
    """Return every code that is written in the modules below `root`: as a class's `code`, or as the argument `code=`."""
    found: set[str] = set()
    for package in _PACKAGES:
        for path in (root / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                found.update(_codes(node))
    return sorted(found)


def _codes(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        for keyword in node.keywords:
            if keyword.arg == "code":
                yield from _texts(keyword.value)
    elif isinstance(node, ast.ClassDef):
        for statement in node.body:
            yield from _assigned_codes(statement)


def _assigned_codes(statement: ast.stmt) -> Iterator[str]:
    if isinstance(statement, ast.AnnAssign) and statement.value is not None:
        yield from _paired(statement.target, statement.value)
    elif isinstance(statement, ast.Assign):
        yield from _paired(statement.targets[0], statement.value)


def _paired(target: ast.expr, value: ast.expr) -> Iterator[str]:
    if isinstance(target, ast.Name) and target.id == "code":
        yield from _texts(value)
    elif isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        for one, its in zip(target.elts, value.elts, strict=False):
            yield from _paired(one, its)


def _texts(value: ast.expr) -> Iterator[str]:
    """Both branches of a condition count."""
    if isinstance(value, ast.Constant) and isinstance(value.value, str):
        yield value.value
    elif isinstance(value, ast.IfExp):
        yield from _texts(value.body)
        yield from _texts(value.orelse)
