"""Every check of the doctor has a page, every page a check, and every finding a line there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tenantry.doctor.registry import CHECKS
from tests.docs.blocks import DOCS, ROOT

PAGE = DOCS / "doctor.md"
NAMES = ["reachable", *(check.name for check in CHECKS)]


def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def codes() -> set[str]:
    """Codes of findings in the sources: they begin with the name of their check."""
    found = set()
    for path in sorted((ROOT / "src/tenantry/doctor").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                match = re.fullmatch(r"([a-z-]+)\.[a-z][a-z0-9-]+", node.value)
                if match is not None and match[1] in NAMES:
                    found.add(node.value)
    return found


def test_every_check_has_a_section_and_every_section_a_check() -> None:
    assert list(sections()) == NAMES
    for check in CHECKS:
        page, anchor = check.page.split("#")
        assert (ROOT / page, anchor) == (PAGE, check.name)


@pytest.mark.parametrize("name", NAMES)
def test_a_section_lists_the_findings_of_its_check_and_no_other(name: str) -> None:
    listed = set(re.findall(rf"`({name}\.[a-z0-9-]+)`", sections()[name]))
    written = {code for code in codes() if code.startswith(f"{name}.")}
    if name == "reachable":
        written = {f"reachable.{need}" for need in ("app", "owner", "admin", "redis")}
    assert listed == written


def test_every_finding_that_is_bad_has_a_test() -> None:
    """Or is judged by numbers, which `tests/doctor/test_judges.py` gives it."""
    tests = "".join(path.read_text() for path in Path(ROOT / "tests/doctor").glob("*.py"))
    good = {"ok", "good", "clean", "as-designed", "complete", "empty", "paired", "match", "served", "head", "agree"}
    good |= {"enough", "short", "room", "done", "sealed", "none"}
    # These take another server: a standby, an encoding, prepared transactions, a catalog full of dead rows, an
    # administrator who is no superuser.
    good |= {"standby", "encoding", "prepared", "catalog", "unknown"}
    untested = {code for code in codes() if code.partition(".")[2] not in good and f'"{code}"' not in tests}
    assert untested == set()
