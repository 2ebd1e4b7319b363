"""What a release says of itself is what the CHANGELOG says of it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from scripts.changelog import check_tag, main, section_of
from tenantry import __version__
from tests.docs.blocks import ROOT

CHANGELOG = """# Changelog

## [Unreleased]

### Added

- What is not out.

## [1.2.0] - 2026-11-24

### Fixed

- A thing. See [the guide](docs/guide.md).

## 1.1.0 (2026-01-31)

- Another.

## [1.0.0] - 2026-01-01

[Unreleased]: https://example.com/compare/v1.2.0...HEAD
[1.2.0]: https://example.com/compare/v1.1.0...v1.2.0
"""
PYPROJECT = '[project]\nname = "x"\nversion = "1.2.0"\n'


@pytest.mark.parametrize(
    ("version", "text"),
    [
        ("1.2.0", "### Fixed\n\n- A thing. See [the guide](docs/guide.md).\n"),
        ("1.1.0", "- Another.\n"),
        ("Unreleased", "### Added\n\n- What is not out.\n"),
    ],
)
def test_a_version_has_its_section_alone(version: str, text: str) -> None:
    assert section_of(CHANGELOG, version) == text


@pytest.mark.parametrize(
    ("version", "told"), [("1.2", "has 0 sections"), ("1.0.0", "says nothing of 1.0.0"), ("1.2.00", "has 0 sections")]
)
def test_a_version_of_which_nothing_is_said_is_not_released(version: str, told: str) -> None:
    with pytest.raises(LookupError, match=told):
        section_of(CHANGELOG, version)


def test_a_version_is_told_of_once() -> None:
    with pytest.raises(LookupError, match="has 2 sections"):
        section_of(f"{CHANGELOG}\n## [1.2.0]\n\n- Again.\n", "1.2.0")


def test_a_tag_is_the_version_that_is_built() -> None:
    check_tag("v1.2.0", PYPROJECT, CHANGELOG)
    for tag, told in (("v1.1.0", "has the version 1.2.0"), ("1.2.0", "the tag is 1.2.0")):
        with pytest.raises(LookupError, match=told):
            check_tag(tag, PYPROJECT, CHANGELOG)
    with pytest.raises(LookupError, match=r"has 0 sections of 1\.2\.0"):
        check_tag("v1.2.0", PYPROJECT, CHANGELOG.replace("1.2.0", "1.3.0"))


def test_the_projects_own_changelog_can_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["Unreleased"]) == 0
    assert capsys.readouterr().out.startswith("### ")
    assert main(["0.0.0"]) == 1
    assert "0 sections of 0.0.0" in capsys.readouterr().err
    headings = re.findall(r"^## \[([^\]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "Unreleased"
    script = [sys.executable, str(ROOT / "scripts/changelog.py"), "--check", "v0.0.0"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert f"the tag is v0.0.0, but pyproject.toml has the version {__version__}" in done.stderr
