"""Where a request comes from: nobody can say so of themselves."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernel.http.address import NOWHERE, ClientAddress, client_address, parse_networks
from tests.kernel.settings_support import load, problems

PROXIES = parse_networks(("10.0.0.0/8", "127.0.0.1/32", "fd00::/8"))


def seen(peer: str | None, *forwarded: str, trusted: Any = PROXIES) -> ClientAddress:
    scope: Any = {
        "client": (peer, 4711) if peer is not None else None,
        "headers": [(b"x-forwarded-for", each.encode("latin-1")) for each in forwarded],
    }
    return client_address(scope, trusted)


def test_without_a_trusted_proxy_it_is_the_connections_own_address() -> None:
    found = seen("203.0.113.9", "198.51.100.7", trusted=())
    assert str(found) == "203.0.113.9"
    assert seen("8.8.8.8", trusted=()).host == "8.8.8.8/32"


@pytest.mark.parametrize("peer", ["127.0.0.1", "10.1.2.3", "192.168.0.1", "::1", "fd00::1"])
def test_a_private_address_that_nobody_vouches_for_tells_no_client_from_another(peer: str) -> None:
    found = seen(peer, "8.8.8.8", trusted=())
    assert (str(found), found.host, found.network) == (peer, None, None)


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        (("8.8.8.8",), "8.8.8.8"),
        (("1.1.1.1, 8.8.8.8",), "8.8.8.8"),
        (("1.1.1.1", "8.8.8.8"), "8.8.8.8"),
        (("1.1.1.1, 8.8.8.8, 10.0.0.7",), "8.8.8.8"),
        (("192.168.1.2",), "192.168.1.2"),
        (("8.8.8.8:4711",), "8.8.8.8"),
        (("[2001:4860::8]:4711",), "2001:4860::8"),
        (("2001:4860::8",), "2001:4860::8"),
        (("::ffff:8.8.8.8",), "8.8.8.8"),
    ],
)
def test_behind_trusted_proxies_it_is_who_the_last_of_them_saw(forwarded: tuple[str, ...], client: str) -> None:
    found = seen("127.0.0.1", *forwarded)
    assert (str(found), found.is_own) == (client, True)


@pytest.mark.parametrize("forwarded", [(), ("",), ("unknown",), ("8.8.8.8, nonsense",), ("10.0.0.9",)])
def test_a_header_that_cannot_be_read_vouches_for_nobody(forwarded: tuple[str, ...]) -> None:
    found = seen("127.0.0.1", *forwarded)
    assert (found.host, found.network) == (None, None)


def test_no_connection_address_is_nowhere() -> None:
    assert seen(None, "8.8.8.8") is NOWHERE
    assert seen("/run/socket", "8.8.8.8") is NOWHERE


def test_a_host_is_an_address_or_its_64_and_a_network_its_24_or_48() -> None:
    assert (seen("8.8.4.4").host, seen("8.8.4.4").network) == ("8.8.4.4/32", "8.8.4.0/24")
    six = seen("2001:4860:1:2:3:4:5:6")
    assert (six.host, six.network) == ("2001:4860:1:2::/64", "2001:4860:1::/48")


@settings(deadline=None)
@given(st.lists(st.text(st.characters(codec="latin-1", exclude_characters=","), max_size=40), max_size=30))
def test_what_a_client_sends_before_never_changes_what_its_proxy_has_seen(sent: list[str]) -> None:
    assert str(seen("127.0.0.1", *sent, "8.8.8.8")) == "8.8.8.8"
    assert str(seen("127.0.0.1", ",".join((*sent, "8.8.8.8")))) == "8.8.8.8"


def test_the_networks_are_a_setting_that_is_checked() -> None:
    assert load().trusted_proxies == ()
    assert load(TRUSTED_PROXIES="10.0.0.0/8, ::1/128").trusted_proxies == ("10.0.0.0/8", "::1/128")
    for wrong in ("everybody", "10.0.0.1/8", "0.0.0.0/0", "::/0"):
        assert problems(TRUSTED_PROXIES=wrong) == (
            f"TENANTRY_TRUSTED_PROXIES: got '{wrong}', expected networks such as 10.0.0.0/8 or 127.0.0.1/32, separated "
            "by commas",
        )
