"""The real helm, without a cluster: it lints, packages and renders the chart."""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

__all__ = ("CHART", "ROOT", "Object", "RefusedError", "helm", "render", "require_helm")

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "tenantry"

Object = dict[str, Any]
"""An object of Kubernetes, as it is written in YAML."""


class RefusedError(Exception):
    """helm has refused the values or the chart; its text is what it said."""


def _program() -> str | None:
    """The helm beside this Python (scripts/install_helm.py), else the one on the PATH."""
    own = Path(sys.executable).parent / "helm"
    return str(own) if own.exists() else shutil.which("helm")


def require_helm() -> str:
    """The path of helm; skips the test where there is none to be had, and fails it where one should be."""
    program = _program()
    if program is None:
        reason = "There is no helm: `make install` gets one for Linux on x86-64; elsewhere put one on the PATH"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return program


@functools.cache
def _environment() -> dict[str, str]:
    """No cluster, no plugins and no repositories of whoever runs the tests."""
    folder = tempfile.mkdtemp(prefix="tenantry-helm-")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HELM_", "KUBE"))}
    homes = {f"HELM_{name}_HOME": f"{folder}/{name.lower()}" for name in ("CACHE", "CONFIG", "DATA")}
    return kept | homes | {"KUBECONFIG": f"{folder}/none"}


def helm(*arguments: str, given: str = "") -> str:
    """What helm prints.

    Raises:
        RefusedError: It ended with another exit code than 0.
    """
    done = subprocess.run(
        [require_helm(), *arguments],
        input=given,
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise RefusedError(done.stderr + done.stdout)
    return done.stdout


@functools.lru_cache(maxsize=256)
def _rendered(arguments: tuple[str, ...], values: str) -> str:
    # The values come by stdin: helm takes `-` for it, and JSON is YAML.
    return helm("template", *arguments, "--values", "-", given=values)


def render(
    values: Mapping[str, Any] | None = None,
    *,
    files: Sequence[Path] = (),
    release: str = "tenantry",
    namespace: str = "tenantry",
    kubernetes: str | None = None,
    upgrade: bool = False,
    chart: Path = CHART,
) -> list[Object]:
    """The objects that helm makes of `files` and, above them, `values`; a new copy each time.

    `kubernetes` is the version that the cluster is said to have; helm's own newest, if None.

    Raises:
        RefusedError: The values are not what values.schema.json or a template allows.
    """
    arguments = [release, str(chart), "--namespace", namespace]
    arguments += [part for path in files for part in ("--values", str(path))]
    if kubernetes is not None:
        arguments += ["--kube-version", kubernetes]
    if upgrade:
        arguments.append("--is-upgrade")
    text = _rendered(tuple(arguments), json.dumps(values or {}, sort_keys=True))
    return [found for found in yaml.load_all(text, Loader=_Loader) if found]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Refuses a key that is written twice, of which Kubernetes would take one and nobody knows which."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
        if len(mapping) != len(node.value):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            twice = sorted({str(key) for key in keys if keys.count(key) > 1})
            raise yaml.constructor.ConstructorError(None, None, f"written twice: {', '.join(twice)}", node.start_mark)
        return mapping
