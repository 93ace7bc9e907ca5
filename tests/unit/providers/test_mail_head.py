"""The head of a mail: whatever the variables are, it has the headers that were meant, once each."""

import email
import email.header

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from providers.smtp.mail import UnsafeHead, build_mail, check_head
from spine.notifications.account_models import SmtpConfig
from spine.notifications.provider_calls import ProviderCall
from spine.notifications.rendering import Content

CONFIG = SmtpConfig(sender="spine@example.com", reply_to="help@example.com")
HEADERS = ["From", "To", "Subject", "Date", "Message-ID", "X-Spine-Attempt", "Reply-To", "MIME-Version", "Content-Type"]
PIECES = st.sampled_from(
    [
        "=?utf-8?q?",
        "=?us-ascii?b?",
        "?=",
        "=0d=0a",
        "=0A",
        "DQo=",
        "\r\n",
        "\n",
        "\r",
        "Bcc: x@y",
        " ",
        "\t",
        "a" * 90,
        "\r\n\r\n",
    ]
)
TEXTS = st.lists(PIECES | st.text(max_size=20), max_size=8).map("".join)


def mail_of(content: Content) -> bytes:
    """The mail as it is sent."""
    call = ProviderCall("att_1", "msg_1", "wsp_1", "email", "meera@example.com", content, {}, "live", 1, 60)
    return build_mail(CONFIG, call)[1]


@given(subject=TEXTS, text=TEXTS, html=TEXTS)
@example(subject="=?utf-8?q?x=0d=0aReply-To:_thief=40evil.example?=", text="x", html="x")
def test_the_headers_are_the_same_for_every_content(subject: str, text: str, html: str) -> None:
    """The parsed mail has these headers and no other, two parts, and the subject as a text in one line."""
    content = mail_of(Content(text, " ".join(subject.split()), html))
    mail = email.message_from_bytes(content)
    assert mail.keys() == HEADERS
    assert [part.get_content_type() for part in mail.walk()] == ["multipart/alternative", "text/plain", "text/html"]
    assert not mail.defects
    shown = str(email.header.make_header(email.header.decode_header(mail["Subject"])))
    assert shown.split() == "".join(char if char.isprintable() else " " for char in subject).split()
    assert all(len(line) <= 998 for line in content.partition(b"\r\n\r\n")[0].split(b"\r\n"))


@pytest.mark.parametrize(
    "head",
    [
        b"A: 1\r\nB: 2\r\nC: 3",
        b"A: 1\r\nA: 1\r\nB: 2",
        b"A: 1",
        b"A: 1\r\nB: 2\nC: 3",
        b"A: 1\r\nB: 2\rC: 3",
        b"A: 1\r\nB: \xe9",
        b"A: 1\r\nB: " + b"x" * 999,
        b"A: 1\r\nB: 2\r\n \r\n x",
        b"A: 1\r\nno header\r\nB: 2",
    ],
    ids=["more", "twice", "fewer", "bare LF", "bare CR", "not ASCII", "a long line", "an empty line", "no name"],
)
def test_a_head_that_was_not_meant_is_refused(head: bytes) -> None:
    """More, fewer or other headers, and lines that servers read differently."""
    check_head(b"A: 1\r\nB: 2\r\n folded\r\n\r\nbody\r\n", {"A", "B"})
    with pytest.raises(UnsafeHead):
        check_head(head + b"\r\n\r\nbody\r\n", {"A", "B"})


def test_a_bare_line_break_in_the_body_is_refused() -> None:
    """Servers that take it as a line's end would read a second mail after it."""
    with pytest.raises(UnsafeHead):
        check_head(b"A: 1\r\n\r\nbody\n.\nMAIL FROM:<x@y>\r\n", {"A"})
