"""Which addresses customers may name, in whatever spelling."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernel.outbound import RefusedAddressError, check_url, is_public

PRINTABLE = frozenset(map(chr, range(0x21, 0x7F)))
LOOPBACK = (ip_network("127.0.0.1/32"),)

# IANA's special-purpose registries (RFC 6890) as of 2025, multicast, and what is not global unicast.
SPECIAL_4 = (
    *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24"),
    *("192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24"),
    *("198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4", "168.63.129.16/32"),
)
SPECIAL_6 = (
    *("::/128", "::1/128", "::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64"),
    *("2001::/23", "2001::/32", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16"),
    *("fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "4000::/2"),
)

special_4 = st.one_of([st.ip_addresses(network=network) for network in SPECIAL_4])
special_6 = st.one_of([st.ip_addresses(network=network) for network in SPECIAL_6])


@given(st.one_of(special_4, special_6))
def test_no_address_of_a_special_purpose_is_public(address: IPv4Address | IPv6Address) -> None:
    assert not is_public(address)


@given(special_4)
def test_no_spelling_of_an_ipv4_address_as_an_ipv6_one_makes_it_public(address: IPv4Address) -> None:
    dotted, sixteens = str(address), address.packed.hex()
    quads = f"{sixteens[:4]}:{sixteens[4:]}"
    teredo = f"2001:0:{quads}:0:0:0:0"
    for text in (f"::{dotted}", f"::ffff:{dotted}", f"::ffff:0:{dotted}", f"64:ff9b::{dotted}", f"64:ff9b:1::{dotted}"):
        assert not is_public(ip_address(text)), text
    for text in (f"2002:{quads}::", f"2002:{quads}::1", teredo):
        assert not is_public(ip_address(text)), text


@pytest.mark.parametrize("address", ["8.8.8.8", "100.63.255.255", "2606:4700::1111", "2a00::1", "64:ff9b::808:808"])
def test_other_addresses_are_public(address: str) -> None:
    assert is_public(ip_address(address))


def test_networks_besides_are_let_through_and_nothing_next_to_them() -> None:
    besides = (ip_network("10.1.0.0/16"), ip_network("fd00:1::/32"))
    assert all(is_public(ip_address(address), besides) for address in ("10.1.2.3", "fd00:1::5", "8.8.8.8"))
    for address in ("10.2.0.0", "::ffff:10.1.2.3", "64:ff9b::10.1.2.3", "fd00:2::5", "127.0.0.1"):
        assert not is_public(ip_address(address), besides), address


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com:8443/hooks;v=1/a%20b?token=x&y=%23",
        "HTTPS://Example.COM./",
        "https://xn--bcher-kva.example/",
        "https://my_hooks.example/",
        "https://8.8.8.8:1/",
        "https://[2606:4700::1111]/",
    ],
)
def test_addresses_of_the_public_internet_are_taken(url: str) -> None:
    check_url(url)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "begins with https://"),
        ("example.com/hooks", "begins with https://"),
        ("http://example.com/", "begins with https://"),
        ("file:///etc/passwd", "begins with https://"),
        ("https://[::1", "absolute URL"),
        ("https://example.com:65536/", "absolute URL"),
        ("https://example.com:-1/", "absolute URL"),
        ("https://example.com:0/", "port"),
        ("https:///hooks", "a host"),
        ("https://:443/", "a host"),
        ("https://example.com/#x", "no fragment"),
        ("https://example.com/#", "no fragment"),
        ("https://bücher.example/", "ASCII"),
        ("https://\N{FULLWIDTH DIGIT ONE}27.0.0.1/", "ASCII"),
        ("https://example.com/a b", "ASCII"),
        ("https://example.com/\r\nX-Injected: 1", "ASCII"),
        ("https://example.com\r\nHost: other/", "absolute URL"),
        ("https://exam\tple.com/", "ASCII"),
        (" https://example.com/", "ASCII"),
        ("https://example.com/\x7f", "ASCII"),
        ("https://ann:secret@example.com/", "no user"),
        ("https://@example.com/", "no user"),
        ("https://example.com\\@127.0.0.1/", "no user"),
        ("https://127.0.0.1\\.example.com/", "letters, digits"),
        ("https://example.com,other.example/", "letters, digits"),
        ("https://exa%6dple.com/", "letters, digits"),
        ("https://example..com/", "letters, digits"),
        ("https://.example.com/", "letters, digits"),
        (f"https://{'a' * 64}.example/", "letters, digits"),
        ("https://other[2606:4700::1111]/", "Expected"),
        ("https://[2606:4700::1111]other/", "Expected"),
        ("https://[fe80::1%25eth0]/", "Expected"),
        ("https://[v1.x]/", "Expected"),
        ("https://127.1/", "usual spelling"),
        ("https://2130706433/", "usual spelling"),
        ("https://017700000001/", "usual spelling"),
        ("https://0x7f.0.0.1/", "usual spelling"),
        ("https://0x7F000001/", "usual spelling"),
        ("https://127.0.0.01/", "usual spelling"),
        ("https://127.0.0.1./", "usual spelling"),
        ("https://example.127/", "usual spelling"),
        ("https://127.0.0.1/", "private, local or reserved"),
        ("https://169.254.169.254/latest/meta-data/", "private, local or reserved"),
        ("https://[::1]/", "private, local or reserved"),
        ("https://[::ffff:169.254.169.254]/", "private, local or reserved"),
        ("https://[::]/", "private, local or reserved"),
    ],
)
def test_other_addresses_are_refused_with_what_was_expected(url: str, words: str) -> None:
    with pytest.raises(RefusedAddressError, match=words):
        check_url(url)


def test_addresses_without_tls_are_taken_where_networks_are_let_through() -> None:
    check_url("http://127.0.0.1:8000/hooks", LOOPBACK)
    check_url("http://localhost/", iter(LOOPBACK))
    with pytest.raises(RefusedAddressError, match="private"):
        check_url("http://127.0.0.2/", LOOPBACK)


_PIECES = (
    "https://",
    "http:",
    "//",
    "@",
    ":",
    ":443",
    "[",
    "]",
    "[::1]",
    "%",
    "\\",
    "/",
    "?",
    "#",
    "\r\n",
    "\t",
    "\0",
    ".",
)


@given(st.one_of(st.text(), st.lists(st.sampled_from(_PIECES) | st.text(max_size=3)).map("".join)), st.booleans())
@settings(max_examples=300)
def test_whatever_is_named_is_taken_or_refused_and_never_an_error_of_ours(text: str, is_prefixed: bool) -> None:
    url = f"https://{text}" if is_prefixed else text
    try:
        check_url(url)
    except RefusedAddressError:
        return
    assert set(url) <= PRINTABLE
    assert url.lower().startswith("https://")


@given(special_4, st.sampled_from(["{}", "{}.", "{:#x}", "{:d}", "0{:o}", "[::ffff:{}]", "[64:ff9b::{}]", "[::{}]"]))
def test_no_literal_of_a_special_purpose_is_taken(address: IPv4Address, spelling: str) -> None:
    value = int(address) if ":#x" in spelling or ":d" in spelling or ":o" in spelling else str(address)
    with pytest.raises(RefusedAddressError):
        check_url(f"https://{spelling.format(value)}:8443/hooks")
