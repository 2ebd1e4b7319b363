"""The schemas of Kubernetes' API by version, and of the custom resources that the chart makes.

Kubernetes' own are the published ones, strict: a field that a version does not know is an error, as it is for
`kubectl apply --validate=strict`. Of the custom resources, `custom_schemas` says the part that the chart may use.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import jsonschema_rs
import kubernetes_validate

from tests.chart.custom_schemas import CUSTOM
from tests.chart.helm import Object

__all__ = ("known_versions", "mistakes")

_FOLDER = files(kubernetes_validate) / "kubernetes-json-schema"
_BASE = "https://kubernetes.io/api/"


def known_versions() -> list[str]:
    """Versions of Kubernetes with schemas, the newest last: ``1.37``."""
    found = {match[1] for path in _FOLDER.iterdir() if (match := re.match(r"v(\d+\.\d+)\.0-local-strict$", path.name))}
    return sorted(found, key=lambda version: int(version.split(".")[1]))


def _read(version: str, name: str) -> Any:
    return json.loads((_FOLDER / f"v{version}.0-local-strict" / name).read_text())


@functools.cache
def _registry(version: str) -> jsonschema_rs.Registry:
    return jsonschema_rs.Registry([(f"{_BASE}_definitions.json", _read(version, "_definitions.json"))])


@functools.cache
def _validator(version: str, api_version: str, kind: str) -> Any:
    """The validator of a kind; None where that version of Kubernetes has no such kind."""
    custom = CUSTOM.get((api_version, kind))
    if custom is not None:
        return jsonschema_rs.Draft202012Validator(custom)
    group, _, name = api_version.rpartition("/")
    prefix = f"{group.partition('.')[0]}-" if group else ""
    try:
        schema = _read(version, f"{kind.lower()}-{prefix}{name}.json")
    except FileNotFoundError:
        return None
    return jsonschema_rs.Draft202012Validator(schema, registry=_registry(version))


def mistakes(found: Object, version: str) -> Iterator[str]:
    """What that version of Kubernetes would say against an object, one line each; nothing if it would take it."""
    kind, name = found["kind"], found["metadata"]["name"]
    validator = _validator(version, found["apiVersion"], kind)
    if validator is None:
        yield f"{kind}/{name}: Kubernetes {version} has no {found['apiVersion']}"
        return
    for error in validator.iter_errors(found):
        path = ".".join(map(str, error.instance_path))
        yield f"{kind}/{name}: {path}: {error.message[:300]}"
    for path in _nulls(found):
        yield f"{kind}/{name}: {path} is null"


def _nulls(value: Any, path: str = "") -> Iterator[str]:
    """Where nothing was written, mostly by a template that meant something; the schemas allow it."""
    if value is None:
        yield path
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _nulls(part, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _nulls(part, f"{path}.{number}")
