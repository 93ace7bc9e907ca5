"""Mail from the operator of this installation, over the operator's own mail server (SPINE_MAIL_URL)."""

import asyncio
import ssl
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiosmtplib
import structlog

from spine.kernel.settings import MailSettings

_TIMEOUT_S: Final = 20.0
_RETRY_AFTER_S: Final = (5.0, 60.0)
_CALLS: Final = 4
_MAX_WAITING: Final = 1000
_log = structlog.get_logger(__name__)


class PlatformMail:
    """Sends mails beside the requests that ask for them, a few at a time, each tried three times."""

    def __init__(self, settings: MailSettings) -> None:
        self._sender = settings.mail_from or ""
        self._server = _server(settings.mail_url.get_secret_value()) if settings.mail_url is not None else None
        self._calls = asyncio.Semaphore(_CALLS)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def is_configured(self) -> bool:
        """True if there is a mail server."""
        return self._server is not None

    def send_soon(self, to: str, subject: str, text: str) -> None:
        """Send a mail after this call. It is logged and dropped if too many others wait."""
        if len(self._tasks) >= _MAX_WAITING:
            _log.error("a mail is not sent, because too many wait", to=to)
            return
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = self._sender, to, subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain=self._sender.rpartition("@")[2])
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no automatic replies
        message.set_content(text)
        task = asyncio.create_task(self._send(message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def close(self) -> None:
        """End the calls under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _send(self, message: EmailMessage) -> None:
        for retry_after_s in (*_RETRY_AFTER_S, None):
            try:
                async with self._calls:
                    await aiosmtplib.send(message, **(self._server or {}))
                return
            except (aiosmtplib.SMTPException, OSError, ValueError) as error:
                _log.warning("mail not sent", to=message["To"], error=repr(error), retry_after_s=retry_after_s)
            if retry_after_s is not None:
                await asyncio.sleep(retry_after_s)


def _server(url: str) -> dict[str, Any]:
    """Return the arguments of aiosmtplib for smtp:// or smtps://. A password is sent over TLS only."""
    parts = urlsplit(url)
    secure = parts.scheme == "smtps"
    username = unquote(parts.username) if parts.username else None
    return {
        "hostname": parts.hostname,
        "port": parts.port or (465 if secure else 587),
        "use_tls": secure,
        "start_tls": None if secure or username is None else True,
        "username": username,
        "password": unquote(parts.password or "") if username else None,
        "tls_context": ssl.create_default_context(),
        "timeout": _TIMEOUT_S,
    }
