"""Define commands: a command is a function of `CommandContext` and its own arguments.

Every command has the options `--json`, `--key`, `--live` and `--url`. A Failure ends it with its text and exit code.
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

_SHARED_OPTIONS: dict[str, tuple[Any, Any]] = {
    "as_json": (Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")], False),
    "key": (Annotated[str | None, typer.Option(help="The API key; else SPINE_API_KEY, else make up's own.")], None),
    "live": (Annotated[bool, typer.Option("--live", help="Use make up's live key instead of its test key.")], False),
    "url": (Annotated[str | None, typer.Option(help="The API's address; else SPINE_URL, else this machine's.")], None),
}


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Environment:
    """Environment variables, network, sleep and clock of a command. Tests replace them."""

    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    transport: httpx.BaseTransport | None = None
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = _now


@dataclass
class CommandContext:
    """Options and services of one call of a command."""

    environment: Environment
    out: Output
    key: str | None
    live: bool
    url: str | None
    resources: ExitStack
    """Resources that are closed when the command ends."""

    @cached_property
    def api(self) -> Api:
        """The client of the API, created at the first access. Raises Failure if there is no key."""
        environment = self.environment
        url, key = api_url(environment.environ, self.url), api_key(environment.environ, self.key, self.live)
        api = Api(url, key, environment.transport, environment.sleep)
        self.resources.callback(api.close)
        return api


def command(app: typer.Typer, name: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function as the command `name`. Its first argument is `CommandContext`, its docstring is the help text."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        own = list(inspect.signature(function).parameters.values())[1:]
        hints = get_type_hints(function, include_extras=True)

        def run(ctx: typer.Context, as_json: bool, key: str | None, live: bool, url: str | None, **own: Any) -> None:
            out = Output(as_json)
            try:
                with ExitStack() as resources:
                    function(CommandContext(ctx.obj or Environment(), out, key, live, url, resources), **own)
            except Failure as failure:
                out.failure(failure)
                raise typer.Exit(failure.exit_code) from None

        only = inspect.Parameter.KEYWORD_ONLY
        shared = [
            inspect.Parameter(name, only, default=default, annotation=hint)
            for name, (hint, default) in _SHARED_OPTIONS.items()
        ]
        context = inspect.Parameter("ctx", only, annotation=typer.Context)
        parameters = [context, *(p.replace(kind=only, annotation=hints[p.name]) for p in own), *shared]
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__doc__ = function.__doc__
        app.command(name)(run)
        return function

    return register


def group(help: str) -> typer.Typer:
    """Return a group of commands, which is a noun with its verbs."""
    return typer.Typer(help=help, no_args_is_help=True, add_completion=False)


def load(path: str) -> Any:
    """Import `module:name` and return it. Some modules take seconds to import, and `spine --help` must be fast."""
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
