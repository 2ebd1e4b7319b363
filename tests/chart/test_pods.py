"""What each pod may do to the cluster, and how it comes and goes."""

from __future__ import annotations

import math
from typing import Any

import pytest

from tests.chart.cases import MINIMAL, merged
from tests.chart.helm import render
from tests.chart.rendering import Pod, Rendering

SERVING = ("api", "worker", "provisioner")


def test_no_pod_gets_a_token_of_kubernetes(rendering: Rendering) -> None:
    for pod in rendering.pods():
        assert pod.spec["automountServiceAccountToken"] is False, pod.name
        volumes = pod.spec.get("volumes") or ()
        sources = [source for volume in volumes for source in (volume.get("projected") or {}).get("sources") or ()]
        assert not any("serviceAccountToken" in source for source in sources), pod.name
    for account in rendering.of("ServiceAccount"):
        assert account["automountServiceAccountToken"] is False
    assert not rendering.of("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")


def test_every_pod_is_within_the_restricted_standard(rendering: Rendering) -> None:
    for pod in rendering.pods():
        spec = pod.spec
        assert spec["securityContext"]["runAsNonRoot"] is True, pod.name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, pod.name
        assert spec["securityContext"].get("runAsUser") != 0, pod.name
        assert not {"hostNetwork", "hostPID", "hostIPC", "hostUsers", "shareProcessNamespace"} & set(spec), pod.name
        assert not spec["securityContext"].get("sysctls"), pod.name
        for container in pod.containers():
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, (pod.name, container["name"])
            assert context["capabilities"] == {"drop": ["ALL"]}, (pod.name, container["name"])
            assert context["readOnlyRootFilesystem"] is True, (pod.name, container["name"])
            assert context.get("privileged", False) is False
            assert context.get("runAsNonRoot", True) is True
            assert context.get("runAsUser") != 0
            assert not any("hostPort" in port for port in container.get("ports") or ())
        allowed = {"configMap", "emptyDir", "persistentVolumeClaim", "projected", "secret", "csi", "ephemeral"}
        for volume in spec.get("volumes") or ():
            assert set(volume) - {"name"} <= allowed, (pod.name, volume["name"])


def test_everything_that_is_mounted_is_a_volume_and_every_volume_is_mounted(rendering: Rendering) -> None:
    for pod in rendering.pods():
        claims = {claim["metadata"]["name"] for claim in pod.owner["spec"].get("volumeClaimTemplates") or ()}
        volumes = [volume["name"] for volume in pod.spec.get("volumes") or ()]
        assert len(volumes) == len(set(volumes)), pod.name
        for container in pod.containers():
            paths = [mount["mountPath"] for mount in container.get("volumeMounts") or ()]
            assert len(paths) == len(set(paths)), (pod.name, paths)
        mounted = {mount["name"] for container in pod.containers() for mount in container.get("volumeMounts") or ()}
        assert mounted == set(volumes) | claims, pod.name


def test_no_variable_is_given_twice(rendering: Rendering) -> None:
    for pod in rendering.pods():
        for container in pod.containers():
            names = [variable["name"] for variable in container.get("env") or ()]
            assert len(names) == len(set(names)), (pod.name, names)


def test_only_tmp_can_be_written_to_and_has_an_end(rendering: Rendering) -> None:
    """Besides the volumes that are for keeping: of archives, of Valkey's log, and those that one adds oneself."""
    for pod in rendering.pods():
        volumes = {volume["name"]: volume for volume in pod.spec.get("volumes") or ()}
        for container in pod.containers():
            for mount in container.get("volumeMounts") or ():
                if mount.get("readOnly") or mount["name"] in {"storage", "data", "more"}:
                    continue
                assert mount["mountPath"] == "/tmp", (pod.name, mount)
                assert volumes[mount["name"]]["emptyDir"]["sizeLimit"], pod.name


def test_nobody_elses_services_are_in_the_environment(rendering: Rendering) -> None:
    """A Service named ``tenantry`` would be ``TENANTRY_PORT`` and twenty more, which a process refuses as unknown."""
    for pod in rendering.pods():
        assert pod.spec["enableServiceLinks"] is False, pod.name


def test_every_container_says_what_it_needs(rendering: Rendering) -> None:
    for pod in rendering.pods():
        for container in pod.containers():
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), (pod.name, container["name"])
            assert "memory" in resources["limits"], (pod.name, container["name"])


def test_images_are_named_with_a_tag_or_a_digest(rendering: Rendering, case: str) -> None:
    for pod in rendering.pods():
        for container in pod.containers():
            image = container["image"]
            assert "@sha256:" in image or ":" in image.rpartition("/")[2], image
            assert not image.endswith(":latest")
            if case == "all-options" and pod.is_ours:
                assert image.startswith("tenantry@sha256:")
                assert pod.spec["imagePullSecrets"] == [{"name": "registry"}]


@pytest.mark.parametrize("component", SERVING)
def test_a_process_is_started_looked_at_and_ended_by_its_own_probes(rendering: Rendering, component: str) -> None:
    (container,) = rendering.pod(component).spec["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    live, ready = ({"path": f"/health/{name}"} for name in ("live", "ready"))
    for probe, wanted in (("startupProbe", live), ("livenessProbe", live), ("readinessProbe", ready)):
        asked = container[probe]["httpGet"]
        assert asked["path"] == wanted["path"], (component, probe)
        assert asked["port"] in ports, (component, probe)
        assert container[probe]["timeoutSeconds"] <= container[probe]["periodSeconds"] + 1
    # Liveness asks nobody else, and is patient all the same: a restart helps nothing that is away.
    liveness = container["livenessProbe"]
    assert liveness["failureThreshold"] * liveness["periodSeconds"] >= 30


def test_the_ports_are_where_the_processes_listen(rendering: Rendering) -> None:
    (api,) = rendering.pod("api").spec["containers"]
    assert rendering.pod("api").environment(rendering)["TENANTRY_PORT"] == (
        "value",
        str(api["ports"][0]["containerPort"]),
    )
    for component in ("worker", "provisioner"):
        pod = rendering.pod(component)
        ports = {port["name"]: str(port["containerPort"]) for port in pod.spec["containers"][0]["ports"]}
        assert pod.environment(rendering)["TENANTRY_METRICS_PORT"] == ("value", ports["metrics"])
        assert pod.environment(rendering)["TENANTRY_METRICS_HOST"] == ("value", "0.0.0.0")


def _drain(pod: Pod) -> int:
    hook = (pod.spec["containers"][0].get("lifecycle") or {}).get("preStop") or {}
    return int((hook.get("sleep") or {}).get("seconds", 0))


def test_the_api_is_gone_from_the_service_before_it_ends_and_has_time_for_what_it_answers(rendering: Rendering) -> None:
    pod = rendering.pod("api")
    assert _drain(pod) >= 5
    # Granian gives requests under way fifteen seconds.
    assert pod.spec["terminationGracePeriodSeconds"] >= _drain(pod) + 15 + 2


@pytest.mark.parametrize("grace", [None, 5, 60, 61.5])
def test_a_worker_has_time_for_its_jobs(grace: float | None) -> None:
    own: dict[str, Any] = {} if grace is None else {"config": {"WORKER_GRACE": grace}}
    pod = Rendering(render(merged(MINIMAL, own))).pod("worker")
    assert pod.spec["terminationGracePeriodSeconds"] >= math.ceil(grace or 25) + 5


def test_a_worker_ends_a_greedy_job_before_the_kernel_ends_the_worker() -> None:
    for limit, least, most in (("1Gi", 600, 960), ("512Mi", 300, 480), ("3Gi", 1800, 2900)):
        values = merged(MINIMAL, {"worker": {"resources": {"limits": {"memory": limit}}}})
        rendering = Rendering(render(values))
        _, memory = rendering.pod("worker").environment(rendering)["TENANTRY_WORKER_MEMORY"]
        assert least <= int(memory) <= most, (limit, memory)


def test_pods_are_spread_and_may_not_all_be_evicted_at_once(full: Rendering) -> None:
    for component in SERVING:
        pod = full.pod(component)
        keys = {constraint["topologyKey"] for constraint in pod.spec["topologySpreadConstraints"]}
        assert keys == {"kubernetes.io/hostname", "topology.kubernetes.io/zone"}
        for constraint in pod.spec["topologySpreadConstraints"]:
            assert constraint["labelSelector"]["matchLabels"].items() <= pod.labels.items()
    guarded = {
        budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        for budget in full.of("PodDisruptionBudget")
    }
    # KEDA may go down to one worker, for which a budget would keep its node from being drained.
    assert guarded == {"api", "provisioner", "pgbouncer"}


def test_no_budget_guards_a_single_pod(rendering: Rendering) -> None:
    for budget in rendering.of("PodDisruptionBudget"):
        component = budget["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]
        owner = rendering.pod(component).owner
        scalers = [
            scaler["spec"]
            for scaler in rendering.of("HorizontalPodAutoscaler", "ScaledObject")
            if _target(scaler) == owner["metadata"]["name"]
        ]
        least = [spec.get("minReplicas", spec.get("minReplicaCount")) for spec in scalers]
        assert (least or [owner["spec"]["replicas"]])[0] > 1, component


def _target(scaler: dict[str, Any]) -> str:
    return str(scaler["spec"]["scaleTargetRef"]["name"])


def test_whoever_scales_is_alone_in_saying_how_many_pods_there_are(rendering: Rendering) -> None:
    scaled = [_target(scaler) for scaler in rendering.of("HorizontalPodAutoscaler", "ScaledObject")]
    assert len(scaled) == len(set(scaled))
    for deployment in rendering.of("Deployment"):
        # With both, each upgrade would set the number back to what the values say.
        assert ("replicas" in deployment["spec"]) != (deployment["metadata"]["name"] in scaled)
    assert set(scaled) <= {deployment["metadata"]["name"] for deployment in rendering.of("Deployment")}


def test_what_is_said_of_nodes_and_pods_reaches_them(full: Rendering) -> None:
    for pod in full.pods():
        if pod.component in {"apply", "test", "test-doctor"}:
            continue
        assert pod.spec["nodeSelector"] == {"pool": "tenantry"}, pod.name
        assert pod.spec["tolerations"][0]["key"] == "dedicated", pod.name
        assert pod.annotations["example.com/note"] == "yes", pod.name
        if pod.component in SERVING:
            assert pod.spec["affinity"]["nodeAffinity"]
            assert pod.spec["priorityClassName"] == "important"
            assert pod.labels["example.com/team"] == "platform"


def test_jobs_end_and_are_not_tried_for_ever(rendering: Rendering) -> None:
    for owner in rendering.of("Job", "CronJob"):
        spec = owner["spec"]["jobTemplate"]["spec"] if owner["kind"] == "CronJob" else owner["spec"]
        assert spec["activeDeadlineSeconds"] > 0, owner["metadata"]["name"]
        assert spec["backoffLimit"] <= 3
        assert spec["template"]["spec"]["restartPolicy"] == "Never"
        if owner["kind"] == "CronJob":
            assert owner["spec"]["concurrencyPolicy"] == "Forbid"
            assert owner["spec"]["timeZone"] == "Etc/UTC"
        else:
            assert spec["ttlSecondsAfterFinished"] > 0
