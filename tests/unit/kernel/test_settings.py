""".env.example and the settings say the same."""

import inspect
import re
from pathlib import Path

import pytest
from pydantic_settings import BaseSettings

from spine.kernel import settings
from spine.supervisor.plan import UpSettings

EXAMPLE = Path(__file__).parent.parent.parent.parent / ".env.example"
GROUPS: list[type[BaseSettings]] = [
    UpSettings,
    *(
        group
        for name, group in inspect.getmembers(settings, inspect.isclass)
        if issubclass(group, BaseSettings) and group.__module__ == settings.__name__ and not name.startswith("_")
    ),
]


def in_example() -> dict[str, str]:
    """The settings that the example names, with the values it shows."""
    return dict(re.findall(r"^# ([A-Z][A-Z_]+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))


def in_code() -> set[str]:
    """The names that the processes read from their environment."""
    return {
        str(field.validation_alias or f"SPINE_{name.upper()}")
        for group in GROUPS
        for name, field in group.model_fields.items()
    }


def test_every_setting_is_in_the_example_and_no_other() -> None:
    """A setting that is added or dropped is added or dropped in .env.example."""
    assert set(in_example()) == in_code()


@pytest.mark.parametrize("group", GROUPS)
def test_the_example_shows_the_defaults(group: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    """Uncommenting any line of the example changes nothing, where the setting has a default."""
    for name, value in in_example().items():
        monkeypatch.setenv(name, value)
    read = group()
    for name, field in group.model_fields.items():
        if not field.is_required() and field.default is not None:
            assert getattr(read, name) == field.default, name
