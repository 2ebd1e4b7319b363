"""Have checkov look over everything that the chart renders, as `make check-chart` does.

    python -m tests.chart.policies CHECKOV

CHECKOV is the program, in an environment of its own. What it may not complain of, and why, is in helm/checkov.yaml.
Ends with 1 where it complains of anything else, or where an exception there is for nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from tests.chart.cases import CASES, rendered
from tests.chart.helm import ROOT

__all__ = ("Allowed", "exceptions", "look_over")

EXCEPTIONS = ROOT / "helm" / "checkov.yaml"


@dataclass(frozen=True)
class Allowed:
    """A rule that some objects are not held to. `where` is a pattern of `case: Kind.namespace.name`."""

    rule: str
    where: str
    why: str

    def takes(self, complaint: dict[str, Any]) -> bool:
        return complaint["check_id"] == self.rule and fnmatchcase(_where(complaint), self.where)


def exceptions() -> list[Allowed]:
    """The rules that are not held to, by whom, with the reason for each."""
    return [Allowed(**entry) for entry in yaml.safe_load(EXCEPTIONS.read_text())]


def _where(complaint: dict[str, Any]) -> str:
    return f"{Path(complaint['file_path']).stem}: {complaint['resource']}"


def look_over(checkov: str, folder: Path) -> list[dict[str, Any]]:
    """Checkov's complaints of the files in a folder.

    Raises:
        subprocess.CalledProcessError: It could not look.
    """
    command = [checkov, "--directory", str(folder), "--framework", "kubernetes", "--output", "json"]
    done = subprocess.run(
        # Nothing is fetched: neither guidelines nor its authors' service are asked.
        [*command, "--quiet", "--compact", "--skip-download", "--soft-fail"],
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    report = json.loads(done.stdout)
    looked_at = report["summary"]["resource_count"] if "summary" in report else report["resource_count"]
    if not looked_at or report["summary"]["parsing_errors"]:
        raise RuntimeError(f"checkov has read {looked_at} objects, and could not read others: {done.stdout[-2000:]}")
    failed: list[dict[str, Any]] = report["results"]["failed_checks"]
    return failed


def main(checkov: str) -> int:
    allowed = exceptions()
    with tempfile.TemporaryDirectory() as name:
        for case in CASES:
            path = Path(name) / f"{case.replace('/', '-')}.yaml"
            path.write_text(yaml.safe_dump_all(rendered(case)))
        complaints = look_over(checkov, Path(name))
    left = [complaint for complaint in complaints if not any(one.takes(complaint) for one in allowed)]
    idle = [one for one in allowed if not any(one.takes(complaint) for complaint in complaints)]
    said = [f"{complaint['check_id']} {complaint['check_name']}: {_where(complaint)}" for complaint in left]
    said += [f"{one.rule} of {one.where}: nothing breaks it any more; take it out of helm/checkov.yaml" for one in idle]
    said += [f"{len(CASES)} renderings, {len(left)} complaints besides {len(complaints) - len(left)} that are allowed"]
    sys.stdout.write("\n".join(said) + "\n")
    return 1 if left or idle else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
