"""Laws of the URLs that may be called."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.ip_addresses import blocked_text
from policies.url_targets import URL_MAX_CHARS, Target, TargetRefused, judge_addresses, known_addresses, target

LOOPBACK = (ip_network("127.0.0.0/8"),)


def _target(url: str, allow: tuple[object, ...] = LOOPBACK) -> Target:
    judged = target(url, allow)  # type: ignore[arg-type]
    assert isinstance(judged, Target), judged
    return judged


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("https://example.com", "https://example.com/"),
        ("HTTPS://EXAMPLE.com:443/Hook", "https://example.com/Hook"),
        ("http://example.com:8443/a%2Fb/~x?q=%7e&x=[1]#part", "http://example.com:8443/a%2Fb/~x?q=%7e&x=[1]"),
        ("https://example.com./x", "https://example.com/x"),
        ("https://bücher.example/ü", "https://xn--bcher-kva.example/%C3%BC"),
        ("https://example.com?x=1", "https://example.com/?x=1"),
        ("https://a_b.example.com:1/", "https://a_b.example.com:1/"),
        ("http://8.8.8.8:65535/", "http://8.8.8.8:65535/"),
        ("http://[2606:4700:4700:0::1111]:81/", "http://[2606:4700:4700::1111]:81/"),
    ],
)
def test_good_urls_are_normalised(url: str, sent: str) -> None:
    """Host and scheme are normalised; path and query are sent unchanged; the fragment is removed."""
    assert _target(url).url == sent


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "example.com",
            "//example.com/",
            "http:example.com",
            "http://",
            "http:///x",
            "https://?x",
            "https://:80/",
        ),
        *("ftp://example.com/", "file:///etc/passwd", "gopher://example.com/", "javascript:x", "ws://example.com/"),
        *("http://user@example.com/", "http://user:pass@example.com/", "http://@example.com/", "http://a@127.0.0.1@b/"),
        *("http://example.com:0/", "http://example.com:65536/", "http://example.com:-1/", "http://example.com:8o/"),
        *("http://example.com:80:80/", "http://exa mple.com/", "http://example.com/a b", "http://example.com/\r\nx:y"),
        *(
            "http://example.com\\@127.0.0.1/",
            "http://example.com/\t",
            "\x00http://example.com/",
            "http://example.com/<",
        ),
        *("http://2130706433/", "http://0x7f000001/", "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://127.1/"),
        *("http://017700000001/", "http://127.0.0.1./", "http://1.2.3.4.5/", "http://256.1.1.1/", "http://x.0x/"),
        *("http://%31%32%37.0.0.1/", "http://127.0.0.1%2f.example.com/", "http://a..b/", "http://.a/", "http://a../"),
        *("http://-a.com/", "http://a-.com/", f"http://{'a' * 64}.com/", f"http://{'a.' * 127}com/", "http://a,b/"),
        *("http://[::1", "http://[::1]x/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[v1.a]/"),
        *("http://[127.0.0.1]/", "http://[]/", "http://::1/", "http://a\u202eb.com/", "http://example.com/\u2028"),
    ],
)
def test_ambiguous_forms_are_refused(url: str) -> None:
    """A URL that two parsers could read differently, or that could inject something, is refused for any allow list."""
    judged = target(url, (*LOOPBACK, ip_network("::/0"), ip_network("0.0.0.0/0")))
    assert isinstance(judged, TargetRefused)
    assert judged.code == "invalid_url"
    assert judged.why


def test_length_is_bounded() -> None:
    """A URL has at most 2,048 characters."""
    longest = "https://example.com/" + "a" * (URL_MAX_CHARS - 20)
    assert isinstance(target(longest), Target)
    assert isinstance(target(longest + "a"), TargetRefused)


@pytest.mark.parametrize(
    "url",
    [
        *(
            "http://127.0.0.1/",
            "http://127.9.9.9:8080/",
            "http://10.0.0.1/",
            "http://169.254.169.254/latest/meta-data/",
        ),
        *("http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[64:ff9b::7f00:1]/"),
        *(
            "http://[fd00:ec2::254]/",
            "http://0.0.0.0/",
            "http://localhost/",
            "http://LOCALHOST:80/",
            "http://a.localhost./",
        ),
        *("http://①②⑦.⓪.⓪.①/", "http://127。0。0。1/", "http://１２７.0.0.1/", "http://ⓛocalhost/"),
    ],
)
def test_special_addresses_are_blocked_in_every_script(url: str) -> None:
    """Loopback, private and metadata addresses are refused, also in digits and dots of other scripts."""
    judged = target(url)
    assert isinstance(judged, TargetRefused)
    assert judged.code == "egress_blocked"


def test_the_allow_list_permits_literals_and_localhost() -> None:
    """With IPv4 loopback allowed, its literal and localhost are permitted, and IPv6 loopback stays blocked."""
    assert known_addresses(_target("http://127.0.0.1:9000/hook")) == ("127.0.0.1",)
    assert "127.0.0.1" in known_addresses(_target("http://localhost:9000/hook"))
    assert isinstance(target("http://[::1]:9000/hook", LOOPBACK), TargetRefused)


def test_a_name_has_no_known_address() -> None:
    """A name is permitted before its addresses are known."""
    judged = _target("https://example.com/")
    assert known_addresses(judged) == ()
    assert judge_addresses(judged, ()) is None


@pytest.mark.parametrize(
    ("addresses", "permitted"),
    [
        (["8.8.8.8"], True),
        (["10.0.0.1"], False),
        (["10.0.0.1", "fe80::1"], False),
        (["10.0.0.1", "8.8.8.8"], True),
        (["127.0.0.1", "::1"], True),
        (["::1"], False),
        (["nonsense"], False),
    ],
)
def test_one_permitted_address_is_enough(addresses: list[str], permitted: bool) -> None:
    """Blocked addresses of a name do not count, because the client never connects to them."""
    refused = judge_addresses(_target("https://example.com/"), addresses, LOOPBACK)
    assert (refused is None) == permitted
    assert refused is None or refused.code == "egress_blocked"


@pytest.mark.parametrize(
    ("url", "addresses", "permitted"),
    [
        ("https://example.com/", ["8.8.8.8"], True),
        ("http://example.com/", ["8.8.8.8"], False),
        ("http://example.com/", ["127.0.0.1"], True),
        ("http://example.com/", ["127.0.0.1", "8.8.8.8"], False),
        ("http://example.com/", [], False),
        ("http://127.0.0.1/", ["127.0.0.1"], True),
    ],
)
def test_https_is_required_outside_the_allow_list(url: str, addresses: list[str], permitted: bool) -> None:
    """If https is required, http is permitted only if every permitted address is in the allow list."""
    assert (judge_addresses(_target(url), addresses, LOOPBACK, https_required=True) is None) == permitted
    usable = not addresses or any(blocked_text(text, LOOPBACK) is None for text in addresses)
    assert (judge_addresses(_target(url), addresses, LOOPBACK) is None) == usable


@given(st.text(max_size=60), st.sampled_from(["", "http://", "https://", "http://[", "http://127.0.0.1"]))
def test_any_text_is_judged_and_an_accepted_one_is_stable(text: str, start: str) -> None:
    """No text raises; an accepted URL is printable ASCII, and parsing it again returns the same target."""
    judged = target(start + text)
    if isinstance(judged, Target):
        assert judged.url.isascii()
        assert judged.url.isprintable()
        assert target(judged.url) == judged
