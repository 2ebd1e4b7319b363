"""Who may speak to whom: nobody to anybody, but for what is needed."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

import pytest

from tests.chart.cases import CASES, rendered
from tests.chart.helm import Object
from tests.chart.rendering import Pod, Rendering, matches

UNGUARDED = {"values"}
"""Cases without network policies."""

GUARDED = [name for name in CASES if name not in UNGUARDED]

REACHES: dict[str, set[str]] = {
    "api": {"pgbouncer", "valkey"},
    "worker": {"pgbouncer", "valkey"},
    "provisioner": {"pgbouncer", "valkey"},
    "migrate": set(),
    "rollout": {"pgbouncer"},
    "apply": {"pgbouncer"},
    "backup": {"pgbouncer", "valkey"},
    "backup-verify": {"pgbouncer", "valkey"},
    "backup-prune": {"pgbouncer", "valkey"},
    "catalog": {"pgbouncer"},
    "doctor": {"pgbouncer", "valkey"},
    "test": {"api"},
    "test-doctor": {"pgbouncer", "valkey"},
    "pgbouncer": set(),
    "valkey": set(),
}
"""Which pods of the release each component reaches, with everything that the chart can make."""


def _policies(rendering: Rendering, pod: Pod) -> list[Object]:
    return [policy for policy in rendering.of("NetworkPolicy") if matches(policy["spec"]["podSelector"], pod.labels)]


def _rules(rendering: Rendering, pod: Pod, direction: str) -> Iterator[dict[str, Any]]:
    for policy in _policies(rendering, pod):
        yield from policy["spec"].get(direction) or ()


def _is_peer(peers: list[dict[str, Any]] | None, pod: Pod) -> bool:
    """Whether a pod of this namespace is among the peers of a rule; all are, where a rule names none."""
    if not peers:
        return True
    return any(
        "ipBlock" not in peer
        and matches(peer.get("podSelector") or {}, pod.labels)
        and ("namespaceSelector" not in peer or not peer["namespaceSelector"])
        for peer in peers
    )


def _takes(rule: dict[str, Any], port: dict[str, Any]) -> bool:
    ports = rule.get("ports")
    return not ports or any(wanted["port"] in (port["name"], port["containerPort"]) for wanted in ports)


def _reaches(rendering: Rendering, source: Pod, target: Pod) -> bool:
    """Whether some port of the target is open to the source, at both ends."""
    return any(
        any(_takes(rule, port) and _is_peer(rule.get("to"), target) for rule in _rules(rendering, source, "egress"))
        and any(
            _takes(rule, port) and _is_peer(rule.get("from"), source) for rule in _rules(rendering, target, "ingress")
        )
        for container in target.spec["containers"]
        for port in container.get("ports") or ()
    )


def test_each_pod_reaches_those_that_it_needs_and_no_other(full: Rendering) -> None:
    pods = list(full.pods())
    found = {pod.component: {other.component for other in pods if _reaches(full, pod, other)} for pod in pods}
    assert found == REACHES


@pytest.mark.parametrize("case", GUARDED, indirect=True)
def test_each_pod_has_the_policy_that_refuses_and_one_of_its_own(rendering: Rendering) -> None:
    for pod in rendering.pods():
        wide: list[Object] = []
        own: list[Object] = []
        for policy in _policies(rendering, pod):
            assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], policy["metadata"]["name"]
            labels = policy["spec"]["podSelector"]["matchLabels"]
            (own if labels.get("app.kubernetes.io/component") == pod.component else wide).append(policy)
        assert len(wide) == 1, pod.name
        assert not wide[0]["spec"].get("ingress"), "it refuses"
        assert not wide[0]["spec"].get("egress"), "it refuses"
        assert len(own) == 1, pod.name


@pytest.mark.parametrize("case", GUARDED, indirect=True)
def test_no_policy_is_for_pods_that_are_not_there(rendering: Rendering) -> None:
    for policy in rendering.of("NetworkPolicy"):
        assert any(matches(policy["spec"]["podSelector"], pod.labels) for pod in rendering.pods()), policy["metadata"]


@pytest.mark.parametrize("case", GUARDED, indirect=True)
def test_ports_that_are_named_are_the_pods_own(rendering: Rendering) -> None:
    for pod in rendering.pods():
        ports = {port["name"] for container in pod.containers() for port in container.get("ports") or ()}
        for rule in _rules(rendering, pod, "ingress"):
            assert {port["port"] for port in rule["ports"]} <= ports, pod.name


def test_metrics_and_requests_come_from_where_the_values_say(full: Rendering) -> None:
    gates = {"kubernetes.io/metadata.name": "ingress"}, {"kubernetes.io/metadata.name": "monitoring"}
    ingress, monitoring = ({"namespaceSelector": {"matchLabels": labels}} for labels in gates)
    for component in ("worker", "provisioner"):
        (rule,) = _rules(full, full.pod(component), "ingress")
        assert rule["from"] == [monitoring]
    (rule,) = _rules(full, full.pod("api"), "ingress")
    assert rule["from"][:2] == [ingress, monitoring]
    assert all(_is_peer(rule["from"][2:], pod) == (pod.component == "test") for pod in full.pods())


@pytest.mark.parametrize("case", GUARDED, indirect=True)
def test_only_those_that_call_webhooks_and_identity_providers_reach_the_internet(rendering: Rendering) -> None:
    for pod in rendering.pods():
        blocks = [
            ipaddress.ip_network(peer["ipBlock"]["cidr"])
            for rule in _rules(rendering, pod, "egress")
            for peer in rule.get("to") or ()
            if "ipBlock" in peer
        ]
        wide = any(block.prefixlen == 0 for block in blocks)
        assert wide == (pod.component in {"api", "worker"}), pod.name


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "10.0.0.1",
        "172.16.3.4",
        "192.168.1.1",
        "100.64.0.1",
        "127.0.0.1",
        "fd00:ec2::254",
        "::ffff:10.0.0.1",
        "fe80::1",
    ],
)
def test_the_internet_is_not_the_clusters_network(full: Rendering, address: str) -> None:
    """A webhook's address is a stranger's to choose; the clouds' own service of secrets is at the first of these."""
    wanted = ipaddress.ip_address(address)
    for component in ("api", "worker"):
        for rule in _rules(full, full.pod(component), "egress"):
            for peer in rule.get("to") or ():
                block = peer.get("ipBlock")
                network = ipaddress.ip_network(block["cidr"]) if block else None
                if network is None or network.prefixlen or network.version != wanted.version:
                    continue
                assert any(wanted in ipaddress.ip_network(part) for part in block["except"]), component


@pytest.mark.parametrize("case", GUARDED, indirect=True)
def test_what_looks_up_names_may_and_postgresql_is_reached_by_whoever_has_its_address(rendering: Rendering) -> None:
    for pod in rendering.pods():
        ports = {port["port"] for rule in _rules(rendering, pod, "egress") for port in rule.get("ports") or ()}
        assert (53 in ports) == (pod.component != "valkey"), pod.name
        assert (5432 in ports) == (pod.component not in {"valkey", "test"}), pod.name


def test_without_policies_there_are_none() -> None:
    assert not Rendering(rendered("values")).of("NetworkPolicy")
