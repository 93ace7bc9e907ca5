"""Templates that providers hold and approve: what ours names for them, and which variables fill theirs (providers.md)."""

from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from pydantic import Field, StringConstraints

from spine.kernel.resource import Body
from spine.notifications.template_vars import VariableName

ParameterName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_]{1,64}$")]
Parameters = Annotated[
    dict[ParameterName, VariableName],
    Field(max_length=100, description="The provider's variables, each with the name of ours that fills it."),
]


class WhatsAppTemplate(Body):
    """An approved template at Meta. Its parameters are numbered: give the names of our variables in their order."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,512}$")]
    language: Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(_[A-Z]{2})?$")]
    header: Annotated[list[VariableName], Field(max_length=1)] = []
    body: Annotated[list[VariableName], Field(max_length=50)] = []
    buttons: Annotated[list[VariableName], Field(max_length=10, description="The ends of its URL buttons.")] = []
    ttl_s: Annotated[
        int | None,
        Field(
            ge=30,
            le=30 * 24 * 3600,
            description="Its `message_send_ttl_seconds` at Meta: how long WhatsApp goes on trying.",
        ),
    ] = None


class TwilioTemplate(Body):
    """A content template at Twilio."""

    content_sid: Annotated[str, StringConstraints(pattern=r"^HX[0-9a-fA-F]{32}$")]
    variables: Parameters = {}


class Msg91Template(Body):
    """A flow at MSG91, which holds the registered text."""

    template_id: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z]{8,64}$")]
    variables: Parameters = {}


class ProviderTemplates(Body):
    """By kind of provider. Without an entry, the provider gets the rendered body of the channel."""

    whatsapp_cloud: WhatsAppTemplate | None = None
    twilio: TwilioTemplate | None = None
    msg91: Msg91Template | None = None

    def variables(self) -> Iterator[str]:
        """Yield the names of our variables that the provider's templates need."""
        if self.whatsapp_cloud is not None:
            yield from (*self.whatsapp_cloud.header, *self.whatsapp_cloud.body, *self.whatsapp_cloud.buttons)
        for template in (self.twilio, self.msg91):
            if template is not None:
                yield from template.variables.values()


def parameter(vars: dict[str, Any], name: str) -> str:
    """Return a variable as the value of a provider's parameter: one line. Lists and objects are written as JSON."""
    value = vars.get(name)
    if value is None:
        return ""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    return " ".join(text.split())
