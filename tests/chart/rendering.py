"""What was rendered, asked by what Kubernetes makes of it: the pods, and what each of them is given."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.chart.helm import Object

__all__ = ("HOOK", "Pod", "Rendering", "matches")

HOOK = "helm.sh/hook"

_PODS = {
    "Pod": (),
    "Deployment": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
}


def matches(selector: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector takes these labels; an empty one takes all."""
    for name, value in (selector.get("matchLabels") or {}).items():
        if labels.get(name) != value:
            return False
    for expression in selector.get("matchExpressions") or ():
        value, values = labels.get(expression["key"]), expression.get("values") or ()
        held = {
            "In": value in values,
            "NotIn": value not in values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[expression["operator"]]
        if not held:
            return False
    return True


@dataclass(frozen=True)
class Pod:
    """A template of pods, and the object that makes them."""

    owner: Object
    labels: dict[str, str]
    annotations: dict[str, str]
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        return f"{self.owner['kind']}/{self.owner['metadata']['name']}"

    @property
    def component(self) -> str:
        return self.labels["app.kubernetes.io/component"]

    @property
    def is_ours(self) -> bool:
        """Whether it runs the application's image, and not PgBouncer's or Valkey's."""
        return self.component not in {"pgbouncer", "valkey"}

    @property
    def hooks(self) -> set[str]:
        """When helm makes it, if not with everything else: ``pre-upgrade``, ``test``."""
        return set(filter(None, (self.owner["metadata"].get("annotations") or {}).get(HOOK, "").split(",")))

    def containers(self) -> list[dict[str, Any]]:
        """Those that work, and before them those that prepare."""
        return [*(self.spec.get("initContainers") or ()), *self.spec["containers"]]

    def environment(self, rendering: Rendering) -> dict[str, tuple[str, str]]:
        """Each variable of any container, with where it comes from: ``("secret", name)``, ``("value", value)``…"""
        found: dict[str, tuple[str, str]] = {}
        for container in self.containers():
            for source in container.get("envFrom") or ():
                ((kind, reference),) = ((kind, value) for kind, value in source.items() if kind != "prefix")
                for key, value in rendering.data(kind, reference["name"]).items():
                    found[source.get("prefix", "") + key] = (kind.removesuffix("Ref"), value)
            for variable in container.get("env") or ():
                found[variable["name"]] = _origin(variable)
        return found

    def secrets(self) -> set[str]:
        """Names of all Secrets that any container reads, or that are mounted."""
        found: set[str] = set()
        for container in self.containers():
            found |= {
                source["secretRef"]["name"] for source in container.get("envFrom") or () if source.get("secretRef")
            }
            found |= {
                variable["valueFrom"]["secretKeyRef"]["name"]
                for variable in container.get("env") or ()
                if "secretKeyRef" in (variable.get("valueFrom") or {})
            }
        for volume in self.spec.get("volumes") or ():
            found |= {volume["secret"]["secretName"]} if "secret" in volume else set()
            for source in (volume.get("projected") or {}).get("sources") or ():
                found |= {source["secret"]["name"]} if "secret" in source else set()
        return found


def _origin(variable: Mapping[str, Any]) -> tuple[str, str]:
    if "value" in variable:
        return "value", variable["value"]
    ((kind, reference),) = variable["valueFrom"].items()
    return kind.removesuffix("KeyRef"), str(reference.get("key", reference.get("fieldPath", reference.get("resource"))))


@dataclass(frozen=True)
class Rendering:
    """All objects of one rendering."""

    objects: list[Object]

    def of(self, *kinds: str) -> list[Object]:
        return [found for found in self.objects if found["kind"] in kinds]

    def named(self, kind: str, name: str) -> Object:
        (found,) = (found for found in self.of(kind) if found["metadata"]["name"] == name)
        return found

    def data(self, kind: str, name: str) -> dict[str, str]:
        """The keys of a ConfigMap or Secret that is rendered; none of one that is somebody else's."""
        wanted = {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind]
        for found in self.of(wanted):
            if found["metadata"]["name"] == name:
                return {**(found.get("data") or {}), **(found.get("stringData") or {})}
        return {}

    def pods(self) -> Iterator[Pod]:
        for owner in self.of(*_PODS):
            template: Any = owner
            for step in _PODS[owner["kind"]]:
                template = template[step]
            metadata = template.get("metadata") or {}
            yield Pod(owner, metadata.get("labels") or {}, metadata.get("annotations") or {}, template["spec"])

    def pod(self, component: str) -> Pod:
        (found,) = (pod for pod in self.pods() if pod.component == component)
        return found
