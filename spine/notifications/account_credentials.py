"""Credentials of provider accounts: validated per kind, sealed in the database, opened for the adapters."""

import base64
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
from pydantic import ValidationError

from spine.kernel.errors import FieldError, InvalidBody, Unprocessable
from spine.kernel.resource import Body
from spine.kernel.vault import Place, Vault
from spine.notifications.account_models import SandboxCredentials, SandboxState, SmtpConfig, SmtpCredentials
from spine.notifications.provider_kinds import PROVIDER_KINDS

ACCOUNT_LOAD: Final = """
    SELECT workspace_id, id, env, channel, kind, credentials, config, sandbox FROM spine.provider_accounts
     WHERE workspace_id = $1 AND id = $2
"""
"""The row that `open_account` takes."""
_TLS_RANK: Final = {"none": 0, "starttls": 1, "implicit": 2}


@dataclass(frozen=True, slots=True)
class ProviderAccount:
    """An account with its credentials in the clear, as an adapter uses it."""

    workspace_id: str
    id: str
    env: str
    channel: str
    kind: str
    credentials: Any
    config: Any
    sandbox: SandboxState | None


def open_account(row: Any, vault: Vault) -> ProviderAccount:
    """Open an account from its row of `spine.provider_accounts`. Raises Unsealable if the operator's key is missing.

    A sandbox account without a secret gets one that is derived from the installation's key. It signs the receipts.
    """
    kind = PROVIDER_KINDS[row["kind"]]
    sandbox = row.get("sandbox")
    credentials = kind.credentials.model_validate(unseal(vault, row["credentials"], row["workspace_id"], row["id"]))
    if isinstance(credentials, SandboxCredentials) and credentials.secret is None:
        derived = "whsec_" + base64.b64encode(vault.derive(b"sandbox." + row["id"].encode())).decode()
        credentials = SandboxCredentials.model_construct(secret=derived)
    return ProviderAccount(
        row["workspace_id"],
        row["id"],
        row["env"],
        row["channel"],
        row["kind"],
        credentials,
        kind.config.model_validate(row["config"]),
        SandboxState.model_validate(sandbox) if sandbox is not None else None,
    )


def validate_account(kind: str, credentials: Any, config: Any) -> tuple[Body, Body]:
    """Return credentials and config as the models of their kind. Raises InvalidBody with all field errors.

    Raises Unprocessable `login_without_tls` for a login that would be sent in clear.
    """
    models = PROVIDER_KINDS[kind]
    errors: list[FieldError] = []
    valid = []
    for name, model, given in (("credentials", models.credentials, credentials), ("config", models.config, config)):
        try:
            valid.append(model.model_validate(given))
        except ValidationError as error:
            errors += [
                FieldError(param=".".join([name, *map(str, item["loc"])]), code=item["type"], detail=item["msg"])
                for item in error.errors()
            ]
    if errors:
        raise InvalidBody(f"{errors[0].param}: {errors[0].detail}", param=errors[0].param, errors=errors)
    if is_login_in_clear(valid[0], valid[1]):
        raise Unprocessable(
            "a login is not sent without TLS; use starttls or implicit, or leave out username and password",
            code="login_without_tls",
            param="config.tls",
        )
    return valid[0], valid[1]


def is_login_in_clear(credentials: Body, config: Body) -> bool:
    """True if the account would log in to a mail server over a connection without TLS."""
    return (
        isinstance(credentials, SmtpCredentials)
        and isinstance(config, SmtpConfig)
        and config.tls == "none"
        and (credentials.username is not None or credentials.password is not None)
    )


def require_secret_again(
    kind: str, old: Mapping[str, Any], credentials: Body, tls: tuple[str, str], given: Collection[str]
) -> None:
    """Raise Unprocessable `secret_required` if a stored secret would go where its owner did not send it.

    The secret must be `given` again with a change of what it goes to, or with less TLS than before (`tls`: old and new;
    empty for a kind without). Else whoever may change an account could have its secret sent to a server of their own.
    """
    models = PROVIDER_KINDS[kind]
    if old.get(models.proof) is None or models.proof in given:
        return
    former = models.credentials.model_validate(old)
    changed = [
        f"credentials.{name}" for name in models.proof_goes_to if getattr(former, name) != getattr(credentials, name)
    ]
    if _TLS_RANK.get(tls[1], 0) < _TLS_RANK.get(tls[0], 0):
        changed.append("config.tls")
    if changed:
        param = f"credentials.{models.proof}"
        detail = f"give the {models.proof} again to change {', '.join(changed)}"
        errors = [FieldError(param=name, code="secret_required", detail=detail) for name in (param, *changed)]
        raise Unprocessable(detail, code="secret_required", param=param, errors=errors)


def credentials_place(workspace_id: str, account_id: str) -> Place:
    """Return where the sealed credentials of an account are stored."""
    return Place(workspace_id, "provider_accounts", account_id, "credentials")


def seal(vault: Vault, credentials: Body, workspace_id: str, account_id: str) -> bytes | None:
    """Encrypt the credentials of an account for the database. Returns None if no field is set."""
    values = credentials.model_dump(exclude_none=True)
    return vault.seal(orjson.dumps(values), credentials_place(workspace_id, account_id)) if values else None


def unseal(vault: Vault, sealed: bytes | None, workspace_id: str, account_id: str) -> dict[str, Any]:
    """Decrypt the credentials of an account from the database. Raises Unsealable if the operator's key is missing."""
    if sealed is None:
        return {}
    values: dict[str, Any] = orjson.loads(vault.open(sealed, credentials_place(workspace_id, account_id)))
    return values
