"""How a command is written: a function of `CommandContext` and its own arguments. The door adds what all of them share.

`--json`, `--key`, `--live` and `--url` stand on every command; a Failure ends it with its sentence and exit code.
"""

import inspect
import os
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib import import_module
from typing import Annotated, Any, get_type_hints

import httpx
import typer

from spine.cli.api import Api
from spine.cli.errors import Failure
from spine.cli.locations import api_key, api_url
from spine.cli.output import Output

_SHARED: dict[str, tuple[Any, Any]] = {
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")], False),
    "key": (Annotated[str | None, typer.Option(help="The API key; else SPINE_API_KEY, else make up's own.")], None),
    "live": (Annotated[bool, typer.Option("--live", help="Use make up's live key instead of its test key.")], False),
    "url": (Annotated[str | None, typer.Option(help="The API's address; else SPINE_URL, else this machine's.")], None),
}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Environment:
    """The world outside a command; tests put another in its place."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = _now


@dataclass
class CommandContext:
    """What a command works with."""

    environment: Environment
    out: Output
    key: str | None
    live: bool
    url: str | None
    held: ExitStack
    """What is let go when the command ends."""

    @cached_property
    def api(self) -> Api:
        """The API, found when it is first asked for. Raises Failure where there is no key."""
        environment = self.environment
        url, key = api_url(environment.environ, self.url), api_key(environment.environ, self.key, self.live)
        api = Api(url, key, environment.transport, environment.sleep)
        self.held.callback(api.close)
        return api


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Put a function on the command line under this name; its first argument is `CommandContext`, its docstring the help."""

    def put(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        hints = get_type_hints(function, include_extras=True)

        def run(ctx: typer.Context, as_json: bool, key: str | None, live: bool, url: str | None, **own: Any) -> None:
            out = Output(as_json)
            try:
                with ExitStack() as held:
                    function(CommandContext(ctx.obj or Environment(), out, key, live, url, held), **own)
            except Failure as failure:
                out.failure(failure)
                raise typer.Exit(failure.exit_code) from None

        only = inspect.Parameter.KEYWORD_ONLY
        shared = [
            inspect.Parameter(name, only, default=default, annotation=hint) for name, (hint, default) in _SHARED.items()
        ]
        context = inspect.Parameter("ctx", only, annotation=typer.Context)
        parameters = [context, *(p.replace(kind=only, annotation=hints[p.name]) for p in own), *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__ = function.__doc__
        app.command(name)(run)
        return function

    return put


def group(help: str) -> typer.Typer:
    """A noun whose verbs are commands."""
    return typer.Typer(help=help, no_args_is_help=True, add_completion=False)


def load(path: str) -> Any:
    """What `module:name` names, imported now: some rooms take seconds to load, and `spine --help` must not."""
    module, _, name = path.partition(":")
    return getattr(import_module(module), name)


Count = Annotated[int, typer.Option("--limit", min=1, max=10_000, help="At most this many.")]
Types = Annotated[
    list[str] | None, typer.Option("--type", help="Only these event types: exact, a family ('ticket.*'); repeatable.")
]
Since = Annotated[
    str | None, typer.Option(help="Of events accepted since: 2h (ago), 2026-11-21, 2026-11-21T08:00:00Z.")
]
Until = Annotated[str | None, typer.Option(help="Of events accepted before.")]
Endpoint = Annotated[str | None, typer.Option("--endpoint", help="Only this endpoint: whe_….")]
