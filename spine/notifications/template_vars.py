"""The variables of a template: their names, and how large they may be together."""

import re
from typing import Annotated, Any, Final

import orjson
from pydantic import AfterValidator, Field, JsonValue, StringConstraints

VARIABLE_NAME: Final = re.compile(r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")
VariableName = Annotated[str, StringConstraints(pattern=VARIABLE_NAME.pattern)]
MAX_VARS_BYTES: Final = 64 * 1024


def _check_vars_size(vars: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(orjson.dumps(vars))
    except orjson.JSONEncodeError as error:
        raise ValueError("the variables are nested too deeply") from error
    if size > MAX_VARS_BYTES:
        raise ValueError(f"the variables have {size} bytes of JSON; {MAX_VARS_BYTES} are possible")
    return vars


Vars = Annotated[
    dict[VariableName, JsonValue],
    Field(max_length=100, description="What the template's variables stand for: up to 65,536 bytes of JSON."),
    AfterValidator(_check_vars_size),
]
