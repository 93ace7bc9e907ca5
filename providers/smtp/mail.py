"""Write a mail whose head has exactly the headers that are meant, whatever the variables in it hold."""

import re
from datetime import UTC, datetime
from email.header import Header
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from typing import Final

from spine.directory.addresses import ascii_email_address
from spine.notifications.account_models import SmtpConfig
from spine.notifications.provider_calls import ProviderCall

_MAX_LINE: Final = 998
"""Bytes of a line (RFC 5322, 2.1.1)."""
_MAX_PLAIN: Final = 200
_BARE_BREAK: Final = re.compile(rb"\r(?!\n)|(?<!\r)\n")


class UnsafeHead(Exception):
    """The head of a mail is not the one that was meant."""


class NotAscii(Exception):
    """A recipient cannot be written in ASCII. Mail servers need not take other addresses (RFC 6531)."""


def build_mail(config: SmtpConfig, call: ProviderCall) -> tuple[str, bytes]:
    """Return the Message-ID and the bytes of the mail. The Message-ID names the attempt, as a bounce or a log line shows it.

    The head is written here and not by `email`, which decodes the encoded words of a value (RFC 2047) and, before Python
    3.11.9, writes a line break in them as one: a variable could add headers. Raises UnsafeHead, NotAscii.
    """
    message_id = f"<{call.attempt_id}@{config.sender.rpartition('@')[2]}>"
    head = {
        "From": config.sender,
        "To": ascii_recipient(call.to),
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


def ascii_recipient(address: str) -> str:
    """Return the address as every mail server can take it. Raises NotAscii."""
    try:
        return ascii_email_address(address)
    except ValueError as error:
        raise NotAscii from error
