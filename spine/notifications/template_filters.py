"""Filters within a budget: each pays for what it reads and returns, and what would grow too much is refused beforehand."""

from collections.abc import Callable
from typing import Any, Final

from spine.notifications.template_budget import Budget, TooExpensive, check_chars, check_size, weigh

_SEARCHED_PER_STEP: Final = 2_048
"""Comparisons of characters that one step pays for: Python's search of a text takes the product of the lengths at worst."""
_SCANNED_PER_STEP: Final = 4
"""Characters that one step pays for in filters that look at each one in Python, not in C."""
_SQUARED_PER_STEP: Final = 512
_FILTER_STEPS: Final = 2
_DATE_STEPS: Final = 60
_MAX_DATE_CHARS: Final = 64

_REPLACING: Final = frozenset({"replace", "replace_first", "replace_last"})
_SEARCHING: Final = _REPLACING | {"remove", "remove_first", "remove_last", "split"}
_SELECTING: Final = frozenset({"map", "where", "reject", "find", "find_index", "has", "sum", "sort", "sort_natural"})
_SCANNING: Final = frozenset(
    {
        "escapejs",
        "escape_once",
        "newline_to_br",
        "squish",
        "strip_newlines",
        "truncatewords",
        "url_decode",
        "url_encode",
    }
)


def apply_filter(budget: Budget, name: str, filter: Callable[..., Any], value: Any, *args: Any, **options: Any) -> Any:
    """Return the filter's result. Raises TooExpensive before the filter runs if that can be known, else after it."""
    budget.spend(_FILTER_STEPS)
    for one in (value, *args, *options.values()):
        budget.take(one)
        check_size(one)
    _pay(budget, name, value, args or tuple(options.values()))
    result = filter(value, *args, **options)
    check_size(result)
    budget.take(result)
    return result


def _pay(budget: Budget, name: str, value: Any, args: tuple[Any, ...]) -> None:
    """Pay for what a filter does beyond reading its input, and refuse what would grow too much."""
    if name in _SEARCHING:
        _pay_for_search(budget, name, _text(value), [_text(arg) for arg in args])
    elif name in _SELECTING:
        budget.spend(weigh(value, budget.left) * len(_text(args[0]) if args else "") // 32)
    elif name in _SCANNING:
        budget.spend(len(_text(value)) // _SCANNED_PER_STEP)
    elif name == "join":
        check_chars(len(_text(args[0]) if args else " ") * (len(value) if isinstance(value, list | range) else 1))
    elif name == "uniq":
        budget.spend(weigh(value, budget.left) * (len(value) if isinstance(value, list) else 1) // 16)
    elif name == "strip_html":
        budget.spend(len(_text(value)) ** 2 // _SQUARED_PER_STEP)
    elif name == "date":
        budget.spend(_DATE_STEPS)
        for text in (value, *args):
            if isinstance(text, str) and len(text) > _MAX_DATE_CHARS:
                raise TooExpensive(f"the date or its format has more than {_MAX_DATE_CHARS} characters")


def _pay_for_search(budget: Budget, name: str, text: str, args: list[str]) -> None:
    wanted = args[0] if args else ""
    budget.spend(len(text) * len(wanted) // _SEARCHED_PER_STEP)
    found = len(text) + 1 if wanted == "" else text.count(wanted)
    if name == "split":
        check_size(range(found))
    elif name == "replace" and len(args) > 1:
        check_chars(len(text) + found * (len(args[1]) - len(wanted)))
    elif name in _REPLACING and len(args) > 1:
        check_chars(len(text) + len(args[1]))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else str(value)
