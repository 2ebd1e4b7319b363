"""What an upgrade replaces, and what it leaves alone."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chart.cases import ALL_OPTIONS, CASES, MINIMAL, merged
from tests.chart.helm import render
from tests.chart.rendering import Rendering, matches


def _selectors(rendering: Rendering) -> dict[str, Any]:
    """What cannot be changed of an object that is there: Kubernetes refuses the upgrade."""
    found: dict[str, Any] = {}
    for owner in rendering.of("Deployment", "StatefulSet"):
        name, spec = f"{owner['kind']}/{owner['metadata']['name']}", owner["spec"]
        found[name] = (spec["selector"], spec.get("serviceName"), spec.get("volumeClaimTemplates"))
    return found


def test_selectors_are_these_for_ever(full: Rendering) -> None:
    for name, (selector, _, _) in _selectors(full).items():
        component = name.removeprefix("Deployment/tenantry-").removeprefix("StatefulSet/tenantry-")
        assert selector == {
            "matchLabels": {
                "app.kubernetes.io/name": "tenantry",
                "app.kubernetes.io/instance": "tenantry",
                "app.kubernetes.io/component": component,
            }
        }


def test_no_value_changes_what_cannot_be_changed() -> None:
    other = {
        "labels": {"example.com/owner": "others", "more": "yes"},
        "annotations": {"more": "yes"},
        "image": {"tag": "9.9.9", "digest": ""},
        "config": {"BASE_DOMAIN": "other.example.com"},
        "api": {"podLabels": {"more": "yes"}, "autoscaling": {"enabled": False}},
        "valkey": {"maxMemory": 1024, "podAnnotations": {"more": "yes"}},
        "pgbouncer": {"replicas": 5},
    }
    before, after = (Rendering(render(values)) for values in (ALL_OPTIONS, merged(ALL_OPTIONS, other)))
    assert _selectors(before) == _selectors(after)


def test_each_selector_takes_its_own_pods_and_no_others(full: Rendering) -> None:
    for owner in full.of("Deployment", "StatefulSet"):
        taken = [pod for pod in full.pods() if matches(owner["spec"]["selector"], pod.labels)]
        assert [pod.owner["metadata"]["name"] for pod in taken] == [owner["metadata"]["name"]]
    for service in full.of("Service"):
        (pod,) = (pod for pod in full.pods() if matches({"matchLabels": service["spec"]["selector"]}, pod.labels))
        ports = {port["name"] for container in pod.containers() for port in container["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports


def _annotations(values: dict[str, Any], component: str) -> dict[str, str]:
    return Rendering(render(values)).pod(component).annotations


@pytest.mark.parametrize("component", ["api", "worker", "provisioner"])
def test_pods_are_replaced_when_the_settings_change(component: str) -> None:
    before = _annotations(MINIMAL, component)
    assert before == _annotations(merged(MINIMAL, {"ingress": {"enabled": True, "hosts": ["a.example"]}}), component)
    after = _annotations(merged(MINIMAL, {"config": {"LOG_LEVEL": "DEBUG"}}), component)
    assert before["checksum/config"] != after["checksum/config"]


def test_pods_are_replaced_when_a_secret_of_theirs_changes_and_no_others() -> None:
    values = merged(CASES["values"])
    changed = merged(values, {"secrets": {"vault": {"value": '{"changed": true}'}}})
    for component, has_it in (("api", True), ("worker", True), ("provisioner", False), ("valkey", False)):
        before, after = (_annotations(given, component)["checksum/secrets"] for given in (values, changed))
        assert (before != after) == has_it, component


def test_the_parts_are_replaced_when_their_configuration_changes() -> None:
    for component, change in (
        ("valkey", {"valkey": {"maxMemory": 1024}}),
        ("pgbouncer", {"pgbouncer": {"poolSize": 20}}),
    ):
        before, after = (_annotations(given, component) for given in (ALL_OPTIONS, merged(ALL_OPTIONS, change)))
        assert before["checksum/config"] != after["checksum/config"], component


def test_none_goes_before_another_has_come(rendering: Rendering) -> None:
    for deployment in rendering.of("Deployment"):
        component = deployment["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        strategy = deployment["spec"].get("strategy") or {}
        if component in {"api", "worker", "pgbouncer"}:
            assert strategy["rollingUpdate"]["maxUnavailable"] == 0, component


def test_the_shared_schema_goes_before_and_the_organizations_go_after(full: Rendering) -> None:
    """Deploy, then migrate; and what fails halts the upgrade, since helm waits for its hooks."""
    hooks = {pod.component: pod for pod in full.pods() if pod.hooks}
    assert {name: pod.hooks for name, pod in hooks.items()} == {
        "migrate": {"pre-install", "pre-upgrade"},
        "rollout": {"post-install", "post-upgrade"},
        "apply": {"post-install", "post-upgrade"},
        "test": {"test"},
        "test-doctor": {"test"},
    }
    weights = {
        name: int(pod.owner["metadata"]["annotations"].get("helm.sh/hook-weight", 0)) for name, pod in hooks.items()
    }
    assert weights["rollout"] < weights["apply"]
    # A rollout waits until nobody of the release before serves any more, in the same pod and before it begins.
    (wait,) = hooks["rollout"].spec["initContainers"]
    assert wait["args"][:2] == ["migrate", "wait"]


def test_what_a_hook_leaves_is_there_to_be_looked_at_and_in_nobodys_way(full: Rendering) -> None:
    for pod in full.pods():
        if pod.hooks:
            policy = pod.owner["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
            assert "before-hook-creation" in policy, pod.name
            assert "hook-failed" not in policy, pod.name


def test_volumes_outlive_the_release() -> None:
    rendering = Rendering(render(CASES["values"]))
    for claim in rendering.of("PersistentVolumeClaim"):
        assert claim["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    (valkey,) = rendering.of("StatefulSet")
    assert valkey["spec"]["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
