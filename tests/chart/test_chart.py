"""The chart as a whole: helm's own opinion of it, its package, and the objects' schemas."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
import yaml

from tests.chart.api_schemas import known_versions, mistakes
from tests.chart.cases import CASES, MINIMAL
from tests.chart.helm import CHART, ROOT, Object, RefusedError, helm, render
from tests.chart.rendering import Rendering

ABOUT = yaml.safe_load((CHART / "Chart.yaml").read_text())


def oldest_supported() -> str:
    """The version of Kubernetes that Chart.yaml names."""
    found = re.fullmatch(r">=(\d+\.\d+)\.0-0", ABOUT["kubeVersion"])
    assert found is not None
    return found[1]


VERSIONS = [oldest_supported(), *known_versions()[-2:]]


def test_the_oldest_version_and_the_two_newest_are_tried() -> None:
    assert oldest_supported() in known_versions()
    assert len(set(VERSIONS)) == 3


def test_helm_finds_nothing_to_complain_of(case: str, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(CASES[case]))
    said = helm("lint", "--strict", str(CHART), "--values", str(values))
    assert "WARNING" not in said
    assert "ERROR" not in said


@pytest.mark.parametrize("version", VERSIONS)
def test_kubernetes_would_take_every_object(rendering: Rendering, version: str) -> None:
    assert [line for found in rendering.objects for line in mistakes(found, version)] == []


def test_a_field_that_kubernetes_does_not_know_is_noticed() -> None:
    (deployment, *_) = Rendering(render(MINIMAL)).of("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["imagePolicy"] = "Always"
    deployment["spec"]["paused"] = None
    said = list(mistakes(deployment, VERSIONS[0]))
    assert any("imagePolicy" in line for line in said)
    assert any("spec.paused is null" in line for line in said)


def test_an_older_kubernetes_is_refused() -> None:
    with pytest.raises(RefusedError, match="incompatible with Kubernetes"):
        render(MINIMAL, kubernetes="1.29.0")


def test_no_object_is_there_twice(rendering: Rendering) -> None:
    names = [_identity(found) for found in rendering.objects]
    assert len(names) == len(set(names))


def test_all_objects_are_in_the_releases_namespace_and_carry_its_labels() -> None:
    for found in render(CASES["all-options"], release="blue", namespace="somewhere"):
        metadata = found["metadata"]
        assert metadata["namespace"] == "somewhere", metadata
        assert metadata["labels"]["app.kubernetes.io/instance"] == "blue"
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["labels"]["helm.sh/chart"] == f"tenantry-{ABOUT['version']}"
        assert metadata["labels"]["example.com/owner"] == "platform"
        assert metadata["annotations"]["example.com/contact"] == "platform@example.com"


@pytest.mark.parametrize("release", ["a" * 53, "tenantry-" + "b" * 44, "r2d2"])
def test_names_are_not_too_long_for_kubernetes(release: str) -> None:
    for found in render(CASES["all-options"], release=release):
        kind, name = found["kind"], found["metadata"]["name"]
        # A CronJob's Jobs get eleven characters more, and a Job's name becomes a label of its pods.
        assert len(name) <= (52 if kind == "CronJob" else 63), name
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", name), name
        for value in found["metadata"]["labels"].values():
            assert re.fullmatch(r"([A-Za-z0-9]([\w.-]{0,61}[A-Za-z0-9])?)?", value), value


def test_two_releases_share_nothing() -> None:
    one, two = (Rendering(render(CASES["all-options"], release=name)) for name in ("blue", "green"))
    assert not {_identity(found) for found in one.objects} & {_identity(found) for found in two.objects}


def test_the_package_holds_what_the_chart_reads_and_no_more(tmp_path: Path) -> None:
    helm("package", str(CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        assert all(member.isfile() for member in archive.getmembers())
        names = {member.name for member in archive.getmembers()}
    assert {"tenantry/Chart.yaml", "tenantry/README.md", "tenantry/values.schema.json"} <= names
    assert {"tenantry/files/alerts.yml", "tenantry/files/dashboard.json"} <= names
    tops = {name.split("/")[1] for name in names}
    assert tops == {".helmignore", "Chart.yaml", "README.md", "values.yaml", "values.schema.json", "templates", "files"}
    # Links of the repository have become files: the packaged chart renders what the folder does.
    packaged, folder = (render(CASES["all-options"], chart=chart) for chart in (package, CHART))
    assert sorted(packaged, key=_identity) == sorted(folder, key=_identity)


def _identity(found: Object) -> tuple[str, str]:
    return found["kind"], found["metadata"]["name"]


def test_alerts_and_dashboard_are_the_repositorys_own() -> None:
    assert (CHART / "files/alerts.yml").resolve() == ROOT / "observability/prometheus/alerts.yml"
    assert (CHART / "files/dashboard.json").resolve() == ROOT / "observability/grafana/tenantry.json"
