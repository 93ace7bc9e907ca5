"""E-mail over SMTP: one connection per mail, through the SSRF guard. Replies are read by RFC 5321 and RFC 3463.

Success is the 250 after the final dot; it means queued. If the connection is lost between that dot and the reply, it is
unknown whether the mail was sent (RFC 1047), so it is not sent again. There are no receipts.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from collections.abc import Mapping
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from functools import cached_property
from typing import Final

import aiosmtplib

from policies.fallback_values import FailureClass
from providers.protocol import CALL_TIMEOUT_S, SignatureInvalid
from spine.directory.addresses import ascii_email_address
from spine.kernel.http_client import HttpClient
from spine.kernel.http_client.ssrf_guard import AddressBlockedError
from spine.notifications.account_credentials import ProviderAccount, is_login_in_clear
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult
from spine.notifications.provider_kinds import SmtpConfig, SmtpCredentials

_QUIT_TIMEOUT_S: Final = 1.0
_ENHANCED_CODE: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_CONFIG_CODES: Final = frozenset({530, 534, 535, 538})
_MAX_LINE: Final = 998
"""Bytes of a line (RFC 5322, 2.1.1)."""
_MAX_PLAIN: Final = 200
_BARE_BREAK: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")
_ADDRESS_CODES: Final = frozenset({501, 550, 551, 552, 553})


class UnsafeHead(Exception):
    """The head of a mail is not the one that was meant."""


class NotAscii(Exception):
    """A recipient cannot be written in ASCII. Mail servers need not take other addresses (RFC 6531)."""


class SmtpProvider:
    """Sends through the account's mail server."""

    kind = "smtp"

    def __init__(self, http_client: HttpClient, tls: ssl.SSLContext | None = None) -> None:
        self._http_client = http_client
        self._given_tls = tls

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        """One for all mails: making it reads every trusted certificate, which takes 30 ms."""
        return self._given_tls or ssl.create_default_context()

    async def send(self, account: ProviderAccount, call: ProviderCall) -> ProviderResult:
        """Send one mail to one person."""
        credentials, config = account.credentials, account.config
        assert isinstance(credentials, SmtpCredentials)
        assert isinstance(config, SmtpConfig)
        if is_login_in_clear(credentials, config):
            return ProviderResult("rejected", None, "config", "login_without_tls")
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
        except NotAscii:
            return ProviderResult("rejected", None, "recipient", "address_not_ascii")
        except UnsafeHead:
            return ProviderResult("rejected", None, "content", "unsafe_header")
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
        message_id, mail = build_mail(config, call)
        sock = await self._http_client.connect(credentials.host, credentials.port, workspace_id=workspace_id)
        client = aiosmtplib.SMTP(
            hostname=credentials.host,
            sock=sock,
            use_tls=config.tls == "implicit",
            start_tls=config.tls == "starttls",
            tls_context=self._tls,
            username=credentials.username,
            password=credentials.password,
            timeout=CALL_TIMEOUT_S,
            local_hostname="localhost",
        )
        try:
            await client.connect()
            await client.mail(config.sender)
            await client.rcpt(_ascii_recipient(call.to))
            progress.content_started = True
            answer = await client.data(mail)
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_QUIT_TIMEOUT_S)  # the mail is already accepted
        finally:
            client.close()
            # The event loop's transport closes the socket. Closed here, its number would be reused while it is watched.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        return ProviderResult(
            "accepted", message_id, http_status=None, raw={"smtp": _reply_text(answer.code, answer.message)}
        )


class _CallProgress:
    """How far a call got. Once sending of the content has started, a lost connection leaves the outcome unknown."""

    content_started = False


def build_mail(config: SmtpConfig, call: ProviderCall) -> tuple[str, bytes]:
    """Return the Message-ID and the bytes of the mail. The Message-ID names the attempt, as a bounce or a log line shows it.

    The head is written here and not by `email`, which decodes the encoded words of a value (RFC 2047) and, before Python
    3.11.9, writes a line break in them as one: a variable could add headers. Raises UnsafeHead, NotAscii.
    """
    message_id = f"<{call.attempt_id}@{config.sender.rpartition('@')[2]}>"
    head = {
        "From": config.sender,
        "To": _ascii_recipient(call.to),
        "Subject": _encoded(call.content.subject or ""),
        "Date": format_datetime(datetime.now(UTC)),
        "Message-ID": message_id,
        "X-Spine-Attempt": call.attempt_id,
    }
    if config.reply_to is not None:
        head["Reply-To"] = config.reply_to
    body = EmailMessage(policy=SMTP_POLICY)
    body.set_content(call.content.text)
    if call.content.html is not None:
        body.add_alternative(call.content.html, subtype="html")
    mail = "".join(f"{name}: {value}\r\n" for name, value in head.items()).encode() + body.as_bytes()
    check_head(mail, {*head, *body.keys()})
    return message_id, mail


def check_head(mail: bytes, names: set[str]) -> None:
    """Raise UnsafeHead unless the head of a mail has exactly these headers, once each, in lines that every server reads alike.

    A line break that is not CRLF anywhere is unsafe too: servers disagree on whether it ends a mail.
    """
    head, _, _ = mail.partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    found = [line.partition(b":")[0].decode("latin-1") for line in lines if line[:1] not in (b" ", b"\t")]
    if (
        sorted(found) != sorted(names)
        or _BARE_BREAK.search(mail)
        or not head.isascii()
        or any(len(line) > _MAX_LINE or not line.strip() for line in lines)
    ):
        raise UnsafeHead


def _encoded(text: str) -> str:
    """Return a value for a header: as it is if it is short printable ASCII without encoded words, else as encoded words."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    if printable.isascii() and "=?" not in printable and len(printable) <= _MAX_PLAIN:
        return printable
    return Header(printable, "utf-8", header_name="Subject").encode(linesep="\r\n")


def _ascii_recipient(address: str) -> str:
    try:
        return ascii_email_address(address)
    except ValueError as error:
        raise NotAscii from error


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
