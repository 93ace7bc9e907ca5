"""Checks a template's text before python-liquid reads it, whose regular expressions take cubic time at worst."""

import re
from typing import Final

from spine.notifications.template_budget import TooExpensive, Unrenderable

MAX_CODE_CHARS: Final = 6_000
"""Characters inside `{{ … }}` and `{% … %}`. Reading them takes up to 4 µs each; plain text takes almost none."""
_MAX_BRACKETS: Final = 100
"""Opening brackets: each one makes the tokenizer look ahead to the end of its tag."""
_OPEN: Final = re.compile(r"\{\{|\{%")
_CLOSE: Final = {"{{": "}}", "{%": "%}"}
_VERBATIM: Final = re.compile(r"\{%-?\s{0,100}(raw|doc)\s{0,100}-?%\}")
_ENDS: Final = {name: re.compile(r"\{%-?\s{0,100}end" + name + r"\s{0,100}-?%\}") for name in ("raw", "doc")}
_LONG_SPACE: Final = re.compile(r"\s{100}")


def check_source(source: str) -> None:
    """Raise Unrenderable for a tag that is not closed, TooExpensive for more code than a template may have."""
    code: list[str] = []
    at = 0
    while opening := _OPEN.search(source, at):
        at = opening.start()
        verbatim = _VERBATIM.match(source, at)
        if verbatim:
            end = _ENDS[verbatim[1]].search(source, verbatim.end())
            if end is None:
                raise Unrenderable(f"{{% {verbatim[1]} %}} is not closed")
            at = end.end()
            continue
        close = source.find(_CLOSE[opening[0]], at + 2)
        if close < 0:
            raise Unrenderable(f"{source[at : at + 20]!r} is not closed by {_CLOSE[opening[0]]}")
        code.append(source[at + 2 : close])
        at = close + 2
    _check_code(code)


def _check_code(code: list[str]) -> None:
    chars = sum(len(one) + 4 for one in code)
    if chars > MAX_CODE_CHARS:
        raise TooExpensive(f"its tags and outputs have {chars} characters; {MAX_CODE_CHARS} are possible")
    if sum(one.count("(") + one.count("[") for one in code) > _MAX_BRACKETS:
        raise TooExpensive(f"it has more than {_MAX_BRACKETS} brackets")
    if any(_LONG_SPACE.search(one) for one in code):
        raise TooExpensive("it has 100 spaces in a row inside a tag or an output")
