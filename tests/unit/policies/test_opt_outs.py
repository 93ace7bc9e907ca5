"""Laws of what people wish: which replies mean STOP, and which wish stands against a send."""

import pytest

from policies.opt_outs import OptOut, opt_out_keyword, opted_out


@pytest.mark.parametrize(
    "text", ["STOP", "stop", " Stop. ", "“STOP”!", "ＳＴＯＰ", "Unsubscribe", "opt-out", "Opt out", "रोकें", "बंद करो।"]
)
def test_a_reply_that_is_the_word_alone_means_stop(text: str) -> None:
    """In any case, in Hindi too, with any punctuation round it (failure case 20)."""
    assert opt_out_keyword(text) == "stop"


@pytest.mark.parametrize("text", ["STOP the order", "please don't stop", "", "ok", "stopwatch", "Yes, that suits me"])
def test_a_sentence_with_the_word_in_it_means_nothing(text: str) -> None:
    """Only the exact word counts."""
    assert opt_out_keyword(text) is None


def test_start_takes_it_back() -> None:
    """START opts in again."""
    assert opt_out_keyword("Start!") == "start"


def test_a_stop_to_marketing_does_not_block_a_code() -> None:
    """A wish holds for its category (failure case 19)."""
    opt_outs = [OptOut("sms", "marketing", True)]
    assert opted_out(opt_outs, "sms", "marketing")
    assert not opted_out(opt_outs, "sms", "otp")
    assert not opted_out(opt_outs, "whatsapp", "marketing")


def test_the_wish_that_names_most_decides() -> None:
    """Whoever wants nothing but codes by SMS gets them."""
    opt_outs = [OptOut("*", "*", True), OptOut("sms", "otp", False)]
    assert not opted_out(opt_outs, "sms", "otp")
    assert opted_out(opt_outs, "sms", "marketing")
    assert opted_out(opt_outs, "email", "otp")
