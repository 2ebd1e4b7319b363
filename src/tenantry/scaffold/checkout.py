"""Writing a new resource into a checkout of the sources: new files, and an entry in the lists that are kept by hand."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tenantry.features import DOMAIN_FEATURES, PLATFORM_FEATURES, SHARED_METADATA, TENANT_METADATA
from tenantry.scaffold.files import migration, package_files, test_file
from tenantry.scaffold.resource import NameRefused
from tenantry.tenancy.autogenerate import check_checkout, next_number
from tenantry.tenancy.migrations import head
from tenantry.tenancy.revision_files import migrations_folder

if TYPE_CHECKING:
    from tenantry.scaffold.resource import Resource

__all__ = ("CheckoutError", "Plan", "plan_resource", "write_resource")

_FEATURES: Final = "src/tenantry/features.py"
_MATRIX: Final = "tests/isolation/matrix.txt"
_CONTRACTS: Final = "pyproject.toml"
_ROLES: Final = {"read": ("yes", "yes", "yes", "yes", "no"), "write": ("yes", "yes", "yes", "no", "no")}
"""What a resource's permissions let the built-in roles do: the matrix's columns."""


class CheckoutError(Exception):
    """The checkout is not as it has to be; the text says what is missing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be written, by its path in the checkout: the whole text of each file."""

    root: Path
    created: dict[str, str]
    changed: dict[str, str]


def plan_resource(resource: Resource, *, today: datetime.date | None = None) -> Plan:
    """Think of everything, and write nothing.

    Raises:
        NameRefused: something has the name already.
        CheckoutError: this is no checkout with its development environment, or a list is not where it used to be.
        RevisionError: the tenant tree is not as it has to be.
    """
    check_checkout()
    root = migrations_folder().parent
    if not (root / "tests" / "isolation").is_dir():
        raise CheckoutError(f"{root} has no tests: a resource is added to a whole checkout of the sources")
    _refuse_taken(resource, root)
    number = next_number("tenant")
    day = (today or datetime.datetime.now(datetime.UTC).date()).isoformat()
    package = f"src/tenantry/domain/{resource.plural}"
    created = {f"{package}/{name}": text for name, text in package_files(resource).items()}
    created[f"migrations/tenant/versions/{number}_{resource.plural}.py"] = migration(
        resource, number=number, after=head("tenant"), written=day
    )
    created[f"tests/domain/test_{resource.plural}.py"] = test_file(resource)
    for path in created:
        if (root / path).exists():
            raise NameRefused(f"{path} is there already")
    changed = {
        _FEATURES: _listed((root / _FEATURES).read_text("utf-8"), resource),
        _MATRIX: _in_matrix((root / _MATRIX).read_text("utf-8"), resource),
        _CONTRACTS: _in_contract((root / _CONTRACTS).read_text("utf-8"), resource),
    }
    return Plan(root, created, changed)


def write_resource(plan: Plan) -> None:
    """Write the files and edits, formatted as `make check` wants them.

    Raises:
        CheckoutError: ruff, which formats them, is not installed or cannot read them.
        OSError: a file cannot be written.
    """
    for path, text in (plan.created | plan.changed).items():
        (plan.root / path).parent.mkdir(parents=True, exist_ok=True)
        (plan.root / path).write_text(text, encoding="utf-8")
    python = [str(plan.root / path) for path in (*plan.created, _FEATURES)]
    for arguments in (("check", "--fix", "--select", "F401,I,RUF022"), ("format",)):
        done = subprocess.run(  # noqa: S603 - our own environment's ruff, on the files that were just written
            [sys.executable, "-m", "ruff", *arguments, "--quiet", *python],
            cwd=plan.root,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise CheckoutError(f"ruff could not format what was written (make install?): {done.stdout}{done.stderr}")


def _refuse_taken(resource: Resource, root: Path) -> None:
    tables = {table.name for metadata in (TENANT_METADATA, SHARED_METADATA) for table in metadata.tables.values()}
    if resource.name in tables:
        raise NameRefused(f"there is a table {resource.name!r} already")
    features = {feature.name for feature in (*DOMAIN_FEATURES, *PLATFORM_FEATURES)}
    paths = {
        str(vars(controller).get("path", "")).strip("/").partition("/")[0]
        for feature in DOMAIN_FEATURES
        for controller in feature.controllers
    }
    for name in (resource.plural, resource.path):
        if name in features | paths or (root / "src/tenantry/domain" / name).exists():
            raise NameRefused(f"there are {resource.many} already")
    if resource.key in {name for feature in DOMAIN_FEATURES for name in feature.identifiers}:
        raise NameRefused(f"{resource.key!r} identifies something else already")


_IMPORTED = re.compile(r"^(from tenantry\.domain import \(\n)((?:    \w+,\n)+)(\)\n)", re.MULTILINE)
_DOMAIN = re.compile(r"^(DOMAIN_FEATURES: [^\n]*\(\n(?:    [\w.]+,\n)+)(\)\n)", re.MULTILINE)


def _listed(text: str, resource: Resource) -> str:
    for pattern in (_IMPORTED, _DOMAIN):
        if len(pattern.findall(text)) != 1:
            raise CheckoutError(f"{_FEATURES} does not have the lists that a resource is entered in")
    text = _IMPORTED.sub(rf"\g<1>\g<2>    {resource.plural},\n\g<3>", text)
    return _DOMAIN.sub(rf"\g<1>    {resource.plural}.FEATURE,\n\g<2>", text)


_TOP_LAYER = re.compile(
    r'^name = "Domains know each other downwards"\n(?:(?!\[\[).*\n)*?'
    r'layers = \[\n    """\\\n((?:    [\w.]+ \| \\\n)*    [\w.]+)"""',
    re.MULTILINE,
)


def _in_contract(text: str, resource: Resource) -> str:
    """A resource that stands alone knows no other package, and none knows it: it is one of the top layer's."""
    found = list(_TOP_LAYER.finditer(text))
    if len(found) != 1:
        raise CheckoutError(f"{_CONTRACTS} does not have the import contract that a resource's package is entered in")
    top, package = found[0], f"tenantry.domain.{resource.plural}"
    if package in re.findall(r"[\w.]+", top[1]):
        return text
    return f"{text[: top.end(1)]} | \\\n    {package}{text[top.end(1) :]}"


def _in_matrix(text: str, resource: Resource) -> str:
    lines = text.splitlines()
    # The header's columns are those of every line.
    try:
        start = next(number for number, line in enumerate(lines) if line.startswith("method route"))
    except StopIteration:
        raise CheckoutError(f"{_MATRIX} has no header") from None
    columns = [match.start() for match in re.finditer(r"\S+", lines[start])][2:]
    path = f"/api/{resource.path}"
    one = f"{path}/{{{resource.key}}}"
    for method, route, kind in (
        ("GET", path, "read"),
        ("POST", path, "write"),
        ("GET", one, "read"),
        ("PATCH", one, "write"),
        ("DELETE", one, "write"),
    ):
        line = f"{method:<6} {route}"
        for column, word in zip(columns, _ROLES[kind], strict=True):
            line = f"{line:<{column}}{'' if len(line) < column else ' '}{word}"
        lines.append(line)
    rows = sorted((line for line in lines[start + 1 :] if line.strip()), key=lambda line: line.split()[:2])
    return "\n".join([*lines[: start + 1], "", *rows]) + "\n"
