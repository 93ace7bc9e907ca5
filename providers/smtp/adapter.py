"""E-mail over SMTP: one connection per mail, through the SSRF guard. Replies are read by RFC 5321 and RFC 3463.

Success is the 250 after the final dot; it means queued. If the connection is lost between that dot and the reply, it is
unknown whether the mail was sent (RFC 1047), so it is not sent again. There are no receipts.
"""

import asyncio
import contextlib
import re
import socket
import ssl
from functools import cached_property
from typing import Final

import aiosmtplib

from policies.fallback_values import FailureClass
from providers.protocol import CALL_TIMEOUT_S, Callback, CallbackResponse, SignatureInvalid
from providers.smtp.mail import NotAscii, UnsafeHead, ascii_recipient, build_mail
from spine.kernel.http_client import HttpClient
from spine.kernel.http_client.ssrf_guard import AddressBlockedError
from spine.notifications.account_credentials import ProviderAccount, is_login_in_clear
from spine.notifications.account_models import SmtpConfig, SmtpCredentials
from spine.notifications.provider_calls import ProviderCall, ProviderReport, ProviderResult

_QUIT_TIMEOUT_S: Final = 1.0
_ENHANCED_CODE: Final = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_CONFIG_CODES: Final = frozenset({530, 534, 535, 538})
_ADDRESS_CODES: Final = frozenset({501, 550, 551, 552, 553})


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
        return await self._within_limits(account, call)

    async def check(self, account: ProviderAccount) -> ProviderResult | None:
        """Connect, and log in if the account has a login."""
        return await self._within_limits(account, None)

    async def poll(self, account: ProviderAccount, provider_message_id: str) -> ProviderReport | None:
        """Return None: a mail server does not tell what became of a mail."""
        return None

    async def _within_limits(self, account: ProviderAccount, call: ProviderCall | None) -> ProviderResult:
        """Hold one conversation with the server, which sends the mail of `call` if there is one. Never raises for its errors."""
        credentials, config = account.credentials, account.config
        assert isinstance(credentials, SmtpCredentials)
        assert isinstance(config, SmtpConfig)
        if is_login_in_clear(credentials, config):
            return ProviderResult("rejected", None, "config", "login_without_tls")
        progress = _CallProgress()
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await self._talk(account.workspace_id, credentials, config, call, progress)
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

    def receive(self, account: ProviderAccount, callback: Callback) -> CallbackResponse:
        """Raise SignatureInvalid: a mail server sends no callbacks."""
        raise SignatureInvalid

    async def _talk(
        self,
        workspace_id: str,
        credentials: SmtpCredentials,
        config: SmtpConfig,
        call: ProviderCall | None,
        progress: "_CallProgress",
    ) -> ProviderResult:
        message_id, mail = build_mail(config, call) if call is not None else (None, b"")
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
            answer = await client.connect()
            if call is not None:
                await client.mail(config.sender)
                await client.rcpt(ascii_recipient(call.to))
                progress.content_started = True
                answer = await client.data(mail)
            with contextlib.suppress(aiosmtplib.SMTPException, OSError):
                await client.quit(timeout=_QUIT_TIMEOUT_S)  # the mail is already accepted
        finally:
            client.close()
            # The event loop's transport closes the socket. Closed here, its number would be reused while it is watched.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        return ProviderResult("accepted", message_id, raw={"smtp": _reply_text(answer.code, answer.message)})


class _CallProgress:
    """How far a call got. Once sending of the content has started, a lost connection leaves the outcome unknown."""

    content_started = False


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
