"""E-mail over SMTP: one connection a mail, through the guarded door; what the server says is read by RFC 5321 and 3463.

Success is the 250 after the final dot, and means queued. A connection that is lost after that dot and before the answer
leaves it unknown whether the mail went out (RFC 1047): it is never sent again blindly. There are no receipts.
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
from providers.protocol import CALL_TIMEOUT_S, Refused
from spine.kernel.http_client import HttpClient
from spine.kernel.http_client.ssrf_guard import AddressBlockedError
from spine.notifications.provider_accounts import ProviderAccount
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.notifications.provider_kinds import SmtpConfig, SmtpCredentials

_QUIT_TIMEOUT_S: Final = 1.0
_ENHANCED: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_CONFIG_CODES: Final = frozenset({530, 534, 535, 538})
_ADDRESS_CODES: Final = frozenset({501, 550, 551, 552, 553})


class SmtpProvider:
    """Sends through the account's server."""

    kind = "smtp"

    def __init__(self, egress: HttpClient, tls: ssl.SSLContext | None = None) -> None:
        self._http_client = egress
        self._tls = tls

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """One mail to one person."""
        credentials, config = account.credentials, account.config
        assert isinstance(credentials, SmtpCredentials)
        assert isinstance(config, SmtpConfig)
        progress = _Progress()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._send(credentials, config, call, progress)
        except aiosmtplib.SMTPSenderRefused as error:
            return ProviderResult(
                "rejected", None, "config", str(error.code), error.code, raw={"smtp": _text(error.code, error.message)}
            )
        except aiosmtplib.SMTPResponseException as error:
            return _judged(error.code, error.message, login=isinstance(error, aiosmtplib.SMTPAuthenticationError))
        except AddressBlockedError:
            return ProviderResult("rejected", None, "config", "egress_blocked")
        except UnicodeError:
            return ProviderResult("rejected", None, "recipient", "address_not_ascii")
        except OSError as error:
            # A time-out is one, a lost connection of aiosmtplib's and a failed TLS handshake too.
            code = type(error).__name__
            if progress.content_begun:
                return ProviderResult("unknown", None, "timeout", code)
            return ProviderResult("rejected", None, "connect", code)
        except aiosmtplib.SMTPException:
            # No STARTTLS or no AUTH where the account demands it: nothing goes out in the clear instead.
            return ProviderResult("rejected", None, "config", "not_supported")

    def reports(
        self, account: ProviderAccount, secret: str, headers: Mapping[str, str], body: bytes
    ) -> list[ProviderReport]:
        """Mail servers report by mail; nothing comes in this way."""
        raise Refused

    async def _send(
        self, credentials: SmtpCredentials, config: SmtpConfig, call: ProviderCall, progress: "_Progress"
    ) -> ProviderResult:
        sock = await self._http_client.connect(credentials.host, credentials.port)
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
        message = written(config, call)
        try:
            await client.connect()
            await client.mail(config.sender)
            await client.rcpt(call.to)
            progress.content_begun = True
            answer = await client.data(message.as_bytes(policy=SMTP_POLICY))
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_QUIT_TIMEOUT_S)  # manners only: the mail is taken
        finally:
            client.close()
            if client.transport is None:
                sock.close()
        return ProviderResult(
            "accepted", message["Message-ID"], http_status=None, raw={"smtp": _text(answer.code, answer.message)}
        )


class _Progress:
    """How far a call got: once the content is on its way, losing the connection proves nothing."""

    content_begun = False


def written(config: SmtpConfig, call: ProviderCall) -> EmailMessage:
    """The mail. Its Message-ID is made of the attempt's id, so that a bounce or a log line finds it."""
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


def _judged(code: int, text: str, *, login: bool = False) -> ProviderResult:
    """A refusal by its codes (providers.md, SMTP): 4yz may pass, 5yz will not; the enhanced code says whose fault it is."""
    found = _ENHANCED.search(text)
    enhanced = found.group(0) if found else ""
    subject = found.group(2) if found else ""
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
    return ProviderResult("rejected", None, failure, enhanced or str(code), code, raw={"smtp": _text(code, text)})


def _text(code: int, text: str) -> str:
    return f"{code} {text}"[:500].replace("\x00", "\ufffd")
