"""The operator's handbook is followed: every command of it is given to a shell, and does what is said of it."""

from __future__ import annotations

import configparser
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.blocks import ROOT
from tests.docs.deployment import Deployment
from tests.docs.handbook import FOLDER, HANDBOOK, RUN, Block, blocks_of
from tests.docs.metrics_table import series
from tests.docs.outside import MisspeltError, check
from tests.docs.personal_table import table
from tests.docs.promql import evaluate, metrics_of
from tests.docs.shown import missing_of
from tests.docs.test_observability import HEALTHY, OTHERS, RULES

FIRST = FOLDER / "deployment.md"
# The others are followed on what the first has made. The last ones leave something behind that others would meet.
LAST = ("upgrading.md", "disaster-recovery.md")
REST = [path for path in HANDBOOK if path != FIRST and path.name not in LAST] + [FOLDER / name for name in LAST]
READ: dict[str, Callable[[str], Any]] = {
    "ini": lambda text: configparser.ConfigParser(interpolation=None).read_string(text),
    "json": json.loads,
    "yaml": yaml.safe_load,
    "toml": tomllib.loads,
}


def _blocks(*languages: str) -> list[Block]:
    return [block for path in HANDBOOK for block in blocks_of(path) if block.language in languages]


@pytest.mark.slow
def test_every_command_does_what_the_handbook_says() -> None:
    """One test, since the others are followed on what the first document has made: two minutes of CPU."""
    with Deployment() as deployment:
        for block in blocks_of(FIRST):
            said = deployment.run(block)
            assert not said, said
        assert {tenant["slug"] for tenant in deployment.tenantry("tenants", "list")} >= {"acme", "globex"}
        wrong = [said for document in REST for block in blocks_of(document) if (said := deployment.run(block))]
    assert not wrong, "\n\n".join(wrong)


def test_where_personal_data_are_is_what_the_manifests_say() -> None:
    found = re.search(
        r"^\| table \| whose .*?(?=\n\n)", (FOLDER / "data-protection.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert found is not None
    assert found[0] == table(), "python -m tests.docs.personal_table prints it"


@pytest.mark.parametrize(
    ("measured", "where"),
    [
        *((figure, "README.md") for figure in ("888", "0.76", "2,300 to 2,900", "13.3 ms", "4.1 s", "1.15 s")),
        *((figure, "docs/scale.md") for figure in ("154 KiB", "925 KiB", "15 GB", "3,440", "1,560 µs", "3,223 µs")),
        ("160 to 460 MiB", "docs/scale.md"),
    ],
)
def test_a_figure_is_what_was_measured(measured: str, where: str) -> None:
    """Where it is measured anew, it changes here as well."""
    assert measured in (FOLDER / "capacity.md").read_text() + (FOLDER / "limits.md").read_text()
    assert measured in (ROOT / where).read_text()


@pytest.mark.parametrize("column", range(3))
def test_the_sizes_follow_from_the_formulas(column: int) -> None:
    [section] = re.findall(
        r"^## Three sizes\n(.*?)^## ", (FOLDER / "capacity.md").read_text(), re.MULTILINE | re.DOTALL
    )
    lines = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("|")]
    told = {name.strip(): values[column].strip() for name, *values in lines if values[column].strip(" -")}

    def of(beginning: str) -> list[float]:
        [cell] = [cell for name, cell in told.items() if name.startswith(beginning)]
        return [float(number.replace(",", "")) for number in re.findall(r"[\d.,]*\d", cell)]

    tenants = float(told[""].replace(",", ""))
    replicas, each = of("`tenantry serve`")
    [connections], [most] = of("connections, with"), of("`max_connections`")
    assert connections == replicas * each + of("workers")[0] * (10 + 4) + of("provisioners")[0] * (9 + 6) + 10
    assert most >= connections + each + (10 + 4)
    assert of("relations") == [tenants * 285]
    assert of("backends' memory") == [pytest.approx(connections * min(tenants, 500) * 154 / 2**20, rel=0.05)]
    assert of("`max_locks_per_transaction`")[0] * most >= tenants * 50


def test_the_handbook_is_what_the_index_lists() -> None:
    index = (FOLDER / "README.md").read_text()
    listed = re.findall(r"^\| \[(\S+?)\]\(\1\)", index, re.MULTILINE)
    assert sorted(listed) == [path.name for path in HANDBOOK if path.name != "README.md"]


def test_what_is_not_run_has_a_reason() -> None:
    unrun = [block for block in _blocks(*RUN) if block.not_run]
    assert not [block.place for block in unrun if len(block.not_run.split()) < 4]
    # Most are. Where this grows, the tests should.
    assert len(unrun) <= 0.1 * len(_blocks(*RUN))


@pytest.mark.parametrize("block", _blocks("promql"), ids=lambda block: block.place)
def test_a_query_of_a_runbook_is_about_metrics_that_there_are(block: Block) -> None:
    for query in filter(None, block.text.splitlines()):
        assert metrics_of(query) - series() - OTHERS == set()
        evaluate(query, HEALTHY)


@pytest.mark.parametrize("block", _blocks(*READ), ids=lambda block: block.place)
def test_a_file_that_is_shown_can_be_read(block: Block) -> None:
    READ[block.language](block.text)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_an_alert_has_a_runbook_that_is_whole(rule: dict[str, Any]) -> None:
    path, _, anchor = rule["annotations"]["runbook"].partition("#")
    assert (ROOT / path, anchor) == (FOLDER / "runbooks.md", rule["alert"].lower())
    [section] = re.findall(
        rf"^### {rule['alert']}\n(.*?)(?=^##|\Z)", (ROOT / path).read_text(), re.MULTILINE | re.DOTALL
    )
    parts = re.findall(r"^\*\*(.+?)\*\*:(?: |$)", section, re.MULTILINE)
    assert parts == ["Means", "Customers notice", "Look", "Do", "Escalate"]
    assert re.search(r"^```(sh|sql|promql|console)$", section, re.MULTILINE), "something to look with"


def test_no_runbook_is_left_of_an_alert_that_is_gone() -> None:
    text = (FOLDER / "runbooks.md").read_text()
    assert re.findall(r"^### (Tenantry\w+)$", text, re.MULTILINE) == [rule["alert"] for rule in RULES]


@pytest.mark.parametrize(
    ("program", "line"),
    [
        ("kubectl", "get pods -o wide --bogus"),
        ("kubectl", "obtain pods"),
        ("kubectl", "exec deploy/api -- sh"),
        ("helm", "upgrade tenantry . --atomically"),
        ("docker", "run --privileged tenantry serve"),
        ("docker", "run another-image"),
    ],
)
def test_a_command_for_elsewhere_that_is_none_is_noticed(program: str, line: str) -> None:
    with pytest.raises(MisspeltError):
        check(program, line.split())


def test_the_commands_within_are_found() -> None:
    line = "-n prod exec deploy/api -- tenantry doctor --json"
    assert check("kubectl", line.split()) == ["doctor", "--json"]
    line = "run --rm -e TENANTRY_HOME tenantry migrate shared"
    assert check("docker", line.split()) == ["migrate", "shared"]


@pytest.mark.parametrize(
    ("shown", "missing"),
    [
        (["acme …  active"], ""),
        (["acme  on  team", "globex …"], ""),
        (["globex …", "acme …"], "acme …"),
        (["acme"], "acme"),
        (["… is suspended"], "… is suspended"),
    ],
)
def test_output_that_is_shown_is_looked_for_in_its_order(shown: list[str], missing: str) -> None:
    assert missing_of(shown, "slug\n  acme   on team\nacme is   active\nglobex is new\n") == missing


@pytest.mark.parametrize(
    "text", ["```sh\ntrue\n", "```sh\ntrue\n```\n```fortran\nend\n```\n", "<!-- norun: x y z -->\n```sh\ntrue\n```\n"]
)
def test_a_block_that_is_not_understood_is_noticed(tmp_path: Path, text: str) -> None:
    (tmp_path / "page.md").write_text(text)
    with pytest.raises(ValueError, match=r"page\.md"):
        blocks_of(tmp_path / "page.md")
