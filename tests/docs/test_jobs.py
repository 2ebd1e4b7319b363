"""What docs/jobs.md says of what runs by itself, beside what does."""

from __future__ import annotations

import re
from pathlib import Path

from tenantry.features import SCHEDULES
from tenantry.provisioner import create_provisioner
from tests.databases import Template
from tests.docs.blocks import DOCS
from tests.world import settings_for

_SECTION = re.compile(r"^## What runs by itself\n(.*?)^## ", re.MULTILINE | re.DOTALL)
_SPREADS = {0: "", 300: "spread over five minutes", 7200: "spread over two hours"}


def _rows() -> list[list[str]]:
    """What, when, and in which process."""
    [section] = _SECTION.findall((DOCS / "jobs.md").read_text())
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_schedule_is_in_the_table_as_it_is() -> None:
    told = {match[1]: when for what, when, _ in _rows() if (match := re.match(r"`(\w+)`", what))}
    assert told.keys() == {schedule.name for schedule in SCHEDULES}
    for schedule in SCHEDULES:
        when = told[schedule.name]
        assert f"`{schedule.cron}`" in when
        assert _SPREADS[schedule.jitter] in when
        assert ("for the platform" if schedule.job.platform else "for each tenant") in when


async def test_every_chore_of_the_provisioner_is_in_the_table(template: Template, tmp_path: Path) -> None:
    provisioner = create_provisioner(settings_for(template, tmp_path), template.owner_url)
    try:
        chores = {chore.name for chore in provisioner._chores}
    finally:
        await provisioner.close()
    told = [what for what, _, process in _rows() if process == "provisioner"]
    assert len(told) == len(chores)
    assert {name for name in chores if any(name in what for what in told)} == chores
