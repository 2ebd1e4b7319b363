from __future__ import annotations

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.kernel.settings_support import load, problems

NETWORKS = st.ip_addresses().flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(
        lambda bits: str(ip_network((address, bits), strict=False))
    )
)


def test_nothing_but_the_public_internet_is_reached_by_default() -> None:
    assert load().outbound_networks == ()
    assert load().outbound_timeout == 15.0


def test_networks_are_separated_by_commas() -> None:
    settings = load(OUTBOUND_NETWORKS=" 10.1.0.0/16, 127.0.0.1/32 ,,fd00:1::/32,192.168.0.7 ", OUTBOUND_TIMEOUT="2.5")
    assert settings.outbound_networks == ("10.1.0.0/16", "127.0.0.1/32", "fd00:1::/32", "192.168.0.7")
    assert settings.outbound_timeout == 2.5


@given(st.lists(NETWORKS, min_size=1, max_size=4))
def test_every_network_is_taken_as_it_is_written(networks: list[str]) -> None:
    assert load(OUTBOUND_NETWORKS=",".join(networks)).outbound_networks == tuple(networks)


@pytest.mark.parametrize(
    "networks", ["localhost", "10.1.0.1/16", "10.0.0.0/33", "10.1/16", "10.0.0.0/8;127.0.0.1", "*"]
)
def test_what_is_no_network_is_refused(networks: str) -> None:
    assert problems(OUTBOUND_NETWORKS=networks) == (
        f"TENANTRY_OUTBOUND_NETWORKS: got '{networks}', expected networks such as 10.1.0.0/16 or 127.0.0.1/32, "
        "separated by commas",
    )


@pytest.mark.parametrize("timeout", ["0", "-1", "120.5", "inf", "nan", "soon"])
def test_a_request_may_take_two_minutes_at_most(timeout: str) -> None:
    assert problems(OUTBOUND_TIMEOUT=timeout) == (
        f"TENANTRY_OUTBOUND_TIMEOUT: got '{timeout}', expected a number above 0 and up to 120 (seconds)",
    )
