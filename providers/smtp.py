"""E-mail over SMTP: one connection per mail, through the SSRF guard. Replies are read by RFC 5321 and RFC 3463.

Success is the 250 after the final dot; it means queued. If the connection is lost between that dot and the reply, it is
unknown whether the mail was sent (RFC 1047), so it is not sent again. There are no receipts.
"""

import asyncio
import contextlib
import re
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Final

import aiosmtplib

from policies.fallback_values import FailureClass
from providers.protocol import CALL_TIMEOUT_S, SignatureInvalid
from spine.kernel.http_client import HttpClient
from spine.kernel.http_client.ssrf_guard import AddressBlockedError
from spine.notifications.account_credentials import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.notifications.provider_kinds import SmtpConfig, SmtpCredentials

_QUIT_TIMEOUT_S: Final = 1.0
_ENHANCED_CODE: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_CONFIG_CODES: Final = frozenset({530, 534, 535, 538})
_ADDRESS_CODES: Final = frozenset({501, 550, 551, 552, 553})


class SmtpProvider:
    """Sends through the account's mail server."""

    kind = "smtp"

    def __init__(self, http_client: HttpClient, tls: ssl.SSLContext | None = None) -> None:
        self._http_client = http_client
        self._tls = tls

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Send one mail to one person."""
        credentials, config = account.credentials, account.config
        assert isinstance(credentials, SmtpCredentials)
        assert isinstance(config, SmtpConfig)
        progress = _CallProgress()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._send(account.workspace_id, credentials, config, call, progress)
        except aiosmtplib.SMTPSenderRefused as error:
            return ProviderResult(
                "rejected",
                None,
                "config",
                str(error.code),
                error.code,
                raw={"smtp": _reply_text(error.code, error.message)},
            )
        except aiosmtplib.SMTPResponseException as error:
            return _rejected(error.code, error.message, login=isinstance(error, aiosmtplib.SMTPAuthenticationError))
        except AddressBlockedError:
            return ProviderResult("rejected", None, "config", "egress_blocked")
        except UnicodeError:
            return ProviderResult("rejected", None, "recipient", "address_not_ascii")
        except OSError as error:
            # Includes timeouts, aiosmtplib's lost connections and failed TLS handshakes.
            code = type(error).__name__
            if progress.content_started:
                return ProviderResult("unknown", None, "timeout", code)
            return ProviderResult("rejected", None, "connect", code)
        except aiosmtplib.SMTPException:
            # The server lacks the STARTTLS or AUTH that the account requires. The mail is not sent unencrypted instead.
            return ProviderResult("rejected", None, "config", "not_supported")

    def reports(
        self, account: ProviderAccount, secret: str, headers: Mapping[str, str], body: bytes
    ) -> list[ProviderReport]:
        """Raise SignatureInvalid: a mail server sends no callbacks."""
        raise SignatureInvalid

    async def _send(
        self,
        workspace_id: str,
        credentials: SmtpCredentials,
        config: SmtpConfig,
        call: ProviderCall,
        progress: "_CallProgress",
    ) -> ProviderResult:
        sock = await self._http_client.connect(credentials.host, credentials.port, workspace_id=workspace_id)
        client = aiosmtplib.SMTP(
            hostname=credentials.host,
            sock=sock,
            use_tls=config.tls == "implicit",
            start_tls=config.tls == "starttls",
            tls_context=self._tls or ssl.create_default_context(),
            username=credentials.username,
            password=credentials.password,
            timeout=CALL_TIMEOUT_S,
            local_hostname="localhost",
        )
        message = build_mail(config, call)
        try:
            await client.connect()
            await client.mail(config.sender)
            await client.rcpt(call.to)
            progress.content_started = True
            answer = await client.data(message.as_bytes(policy=SMTP_POLICY))
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_QUIT_TIMEOUT_S)  # the mail is already accepted
        finally:
            client.close()
            if client.transport is None:
                sock.close()
        return ProviderResult(
            "accepted", message["Message-ID"], http_status=None, raw={"smtp": _reply_text(answer.code, answer.message)}
        )


class _CallProgress:
    """How far a call got. Once sending of the content has started, a lost connection leaves the outcome unknown."""

    content_started = False


def build_mail(config: SmtpConfig, call: ProviderCall) -> EmailMessage:
    """Build the mail. Its Message-ID contains the attempt's id, so that a bounce or a log line names the attempt."""
    message = EmailMessage()
    message["From"] = config.sender
    message["To"] = call.to
    message["Subject"] = call.content.subject or ""
    message["Date"] = format_datetime(datetime.now(UTC))
    message["Message-ID"] = f"<{call.attempt_id}@{config.sender.rpartition('@')[2]}>"
    message["X-Spine-Attempt"] = call.attempt_id
    if config.reply_to is not None:
        message["Reply-To"] = config.reply_to
    message.set_content(call.content.text)
    if call.content.html is not None:
        message.add_alternative(call.content.html, subtype="html")
    return message


def _rejected(code: int, text: str, *, login: bool = False) -> ProviderResult:
    """Classify a rejection by its codes (providers.md, SMTP): 4yz is transient, 5yz permanent; the enhanced code refines it."""
    match = _ENHANCED_CODE.search(text)
    enhanced = match.group(0) if match else ""
    subject = match.group(2) if match else ""
    failure: FailureClass
    if login or code in _CONFIG_CODES:
        failure = "config"
    elif code == 421:
        failure = "connect"
    elif 400 <= code < 500:
        failure = "transient"
    elif subject == "7" or (code == 554 and subject != "1"):
        failure = "content"
    elif subject in {"1", "2"} or code in _ADDRESS_CODES:
        failure = "recipient"
    else:
        failure = "content"
    return ProviderResult("rejected", None, failure, enhanced or str(code), code, raw={"smtp": _reply_text(code, text)})


def _reply_text(code: int, text: str) -> str:
    return f"{code} {text}"[:500].replace("\x00", "\ufffd")
