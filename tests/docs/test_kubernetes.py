"""What docs/kubernetes.md says of the chart is what the real helm makes of it."""

from __future__ import annotations

import re

import pytest
import yaml

from tests.chart.cases import ALL_OPTIONS, MINIMAL, Values, merged
from tests.chart.helm import render
from tests.chart.rendering import Rendering
from tests.docs.blocks import DOCS

TEXT = (DOCS / "kubernetes.md").read_text()
COLUMNS = {
    "API": ("api",),
    "worker": ("worker",),
    "provisioner": ("provisioner",),
    "migrate, rollout": ("migrate", "rollout"),
    "apply": ("apply",),
    "backups": ("backup", "backup-verify", "backup-prune"),
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def table(first: str) -> tuple[list[str], list[list[str]]]:
    """The heading and the rows of the table whose first column is called so."""
    found = re.search(rf"^\| {first} \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", TEXT, re.MULTILINE)
    assert found is not None, first
    return cells(found[0].partition("\n")[0]), [cells(line) for line in found[1].splitlines()]


@pytest.fixture(scope="module")
def full() -> Rendering:
    # Redis' address by a Secret of its own, as everybody else's; the chart's Valkey has a password.
    own: Values = {"valkey": {"enabled": False}, "secrets": {"redisUrl": {"existingSecret": "kept-redisurl"}}}
    return Rendering(render(merged(ALL_OPTIONS, own)))


def test_the_least_that_the_chart_takes_is_taken() -> None:
    least, more = map(yaml.safe_load, blocks("yaml"))
    made = Rendering(render(least))
    assert {pod.component for pod in made.pods()} >= {"api", "worker", "provisioner", "migrate", "rollout"}
    settings = Rendering(render(merged(MINIMAL, more))).named("ConfigMap", "tenantry-config")["data"]
    assert settings["TENANTRY_WORKER_GRACE"] == "60"
    assert settings["TENANTRY_TRUSTED_PROXIES"] == "10.20.0.0/16"


def test_what_the_commands_name_is_there(full: Rendering) -> None:
    commands = "\n".join(blocks("sh"))
    # What the page itself makes is not the chart's.
    made = {("job", name) for name in re.findall(r"create job ([a-z-]+)", commands)}
    named = set(re.findall(r"\b(deployment|job)/([a-z-]+)", commands)) - made
    assert named
    for kind, name in named:
        assert full.named(kind.capitalize(), name)


def test_the_secrets_that_the_values_name_are_made() -> None:
    made = set(re.findall(r"create secret generic (\S+)", "\n".join(blocks("sh"))))
    least = yaml.safe_load(blocks("yaml")[0])["secrets"]
    assert {secret["existingSecret"] for secret in least.values()} <= made


def test_who_gets_which_secret_is_as_the_table_says(full: Rendering) -> None:
    heading, rows = table("secret")
    assert heading[1:] == list(COLUMNS)
    said: dict[str, set[str]] = {component: set() for components in COLUMNS.values() for component in components}
    for first, *answers in rows:
        items = {f"kept-{item.lower()}" for item in re.findall(r"`(\w+)`", first)}
        for column, answer in zip(heading[1:], answers, strict=True):
            assert answer in {"yes", "\N{EN DASH}", "**never**", "rollout"}
            for component in COLUMNS[column]:
                if answer in {"yes", component}:
                    said[component] |= items
    assert {component: full.pod(component).secrets() for component in said} == said


def test_every_part_is_in_the_table_with_its_commands(full: Rendering) -> None:
    _, rows = table("part")
    for part, runs, _ in rows:
        for name in re.findall(r"(?:Deployment|Job) `…-(\w+)`", part):
            if name in {"pgbouncer", "valkey"}:
                continue
            commands = [f"tenantry {' '.join(one['args'])} " for one in full.pod(name).containers()]
            told = re.findall(r"`(tenantry [^`]+)`", runs)
            assert len(told) == len(commands), name
            assert all(command.startswith(f"{one} ") for one, command in zip(told, commands, strict=True)), name


def test_time_to_end_is_as_the_table_says(full: Rendering) -> None:
    grace = {name: full.pod(name).spec["terminationGracePeriodSeconds"] for name in ("api", "worker", "provisioner")}
    _, rows = table("process")
    for name, *_, told in rows:
        number = int(re.findall(r"(\d+) s", told)[0])
        besides = {"API": 5 + 5, "worker": ALL_OPTIONS["config"]["WORKER_GRACE"]}.get(name, 0)
        assert grace[name.lower()] == number + besides, name
