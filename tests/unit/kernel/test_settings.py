""".env.example and the settings agree."""

import inspect
import re
from pathlib import Path

import pytest
from pydantic import ValidationError
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
    """The settings in the example, with their values."""
    return dict(re.findall(r"^# ([A-Z][A-Z0-9_]+)=(.*)$", EXAMPLE.read_text(), flags=re.MULTILINE))


def in_code() -> set[str]:
    """The names that the settings classes read from the environment."""
    return {
        str(field.validation_alias or f"SPINE_{name.upper()}")
        for group in GROUPS
        for name, field in group.model_fields.items()
    }


def test_the_example_lists_every_setting_and_no_other() -> None:
    """The example has exactly the settings that the code reads."""
    assert set(in_example()) == in_code()


@pytest.mark.parametrize("group", GROUPS)
def test_the_example_shows_the_defaults(group: type[BaseSettings], monkeypatch: pytest.MonkeyPatch) -> None:
    """If a setting has a default, the example shows it."""
    for name, value in in_example().items():
        monkeypatch.setenv(name, value)
    read = group()
    for name, field in group.model_fields.items():
        if not field.is_required() and field.default is not None:
            assert getattr(read, name) == field.default, name


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("", ()),
        ("10.0.0.2", (("10.0.0.2", 53),)),
        ("10.0.0.2:5353, [::1]:53, fd00::53", (("10.0.0.2", 5353), ("::1", 53), ("fd00::53", 53))),
    ],
)
def test_name_servers_are_addresses_with_or_without_a_port(text: str, servers: tuple[tuple[str, int], ...]) -> None:
    """The list is read from its text; a name in it is refused, because no name server could be asked for it."""
    assert settings.EgressSettings.model_validate({"dns_servers": text}).dns_servers == servers
    with pytest.raises(ValidationError, match="dns_servers"):
        settings.EgressSettings.model_validate({"dns_servers": f"{text},ns.example"})
