"""Laws of opt-outs: which replies mean STOP, and which preference blocks a send."""

import pytest

from policies.opt_outs import OptOut, opt_out_keyword, opted_out


@pytest.mark.parametrize(
    "text", ["STOP", "stop", " Stop. ", "“STOP”!", "ＳＴＯＰ", "Unsubscribe", "opt-out", "Opt out", "रोकें", "बंद करो।"]
)
def test_a_reply_that_is_only_the_keyword_means_stop(text: str) -> None:
    """STOP counts in any case, also in Hindi, with any punctuation around it (failure case 20)."""
    assert opt_out_keyword(text) == "stop"


@pytest.mark.parametrize("text", ["STOP the order", "please don't stop", "", "ok", "stopwatch", "Yes, that suits me"])
def test_a_sentence_with_the_keyword_means_nothing(text: str) -> None:
    """Only a reply that is exactly the keyword counts."""
    assert opt_out_keyword(text) is None


def test_start_is_recognised() -> None:
    """START opts in again."""
    assert opt_out_keyword("Start!") == "start"


def test_a_stop_to_marketing_does_not_block_a_code() -> None:
    """A preference applies to its channel and category only (failure case 19)."""
    opt_outs = [OptOut("sms", "marketing", True)]
    assert opted_out(opt_outs, "sms", "marketing")
    assert not opted_out(opt_outs, "sms", "otp")
    assert not opted_out(opt_outs, "whatsapp", "marketing")


def test_the_most_specific_preference_decides() -> None:
    """A person who opted out of everything except codes by SMS gets these codes."""
    opt_outs = [OptOut("*", "*", True), OptOut("sms", "otp", False)]
    assert not opted_out(opt_outs, "sms", "otp")
    assert opted_out(opt_outs, "sms", "marketing")
    assert opted_out(opt_outs, "email", "otp")
