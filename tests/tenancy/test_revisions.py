from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tenantry.tenancy.migrations import Tree, head
from tenantry.tenancy.revisions import (
    RevisionError,
    UnknownRevisionError,
    path_between,
    read_downgrade,
    revisions,
)
from tests.tenancy.trees import Trees, revision_text


@pytest.fixture
def trees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trees:
    return Trees(tmp_path, monkeypatch)


def _three(trees: Trees) -> None:
    # Written in another order than they run in.
    trees.add("tenant", "0003_c", revision_text("0003", "0002"))
    trees.add("tenant", "0001_a", revision_text("0001", None))
    trees.add("tenant", "0002_b", revision_text("0002", "0001"))


@pytest.mark.parametrize("tree", get_args(Tree))
def test_the_projects_trees_are_lines_that_end_at_their_heads(tree: Tree) -> None:
    line = revisions(tree)
    assert line[-1].id == head(tree)
    assert [revision.down_revision for revision in line] == [None, *(revision.id for revision in line[:-1])]
    assert [revision.id for revision in line] == [f"{number:04}" for number in range(1, len(line) + 1)]
    assert all(revision.path.name.startswith(f"{revision.id}_") and revision.doc for revision in line)


def test_a_tree_is_read_from_its_first_revision_to_its_head(trees: Trees) -> None:
    _three(trees)
    line = revisions("tenant")
    assert [(revision.id, revision.down_revision, revision.doc) for revision in line] == [
        ("0001", None, "Step 0001."),
        ("0002", "0001", "Step 0002."),
        ("0003", "0002", "Step 0003."),
    ]
    assert not any(revision.online or revision.irreversible or revision.accepted for revision in line)
    assert revisions("shared") == ()


@pytest.mark.parametrize(
    ("start", "end", "steps"),
    [
        ("base", "head", ["0001", "0002", "0003"]),
        ("0001", "head", ["0002", "0003"]),
        ("0001", "0002", ["0002"]),
        ("0003", "head", []),
        ("base", "base", []),
    ],
)
def test_the_path_holds_what_has_to_run(trees: Trees, start: str, end: str, steps: list[str]) -> None:
    _three(trees)
    assert [revision.id for revision in path_between("tenant", start, end)] == steps


def test_there_is_no_path_from_or_to_a_revision_of_another_release(trees: Trees) -> None:
    _three(trees)
    with pytest.raises(UnknownRevisionError, match=r"the tree 'tenant' has no revision '0004', but 0001 to 0003"):
        path_between("tenant", "0004")
    with pytest.raises(UnknownRevisionError, match=r"no revision '00'"):
        path_between("tenant", "base", "00")
    with pytest.raises(RevisionError, match="'0001' comes before '0003': that would be a downgrade"):
        path_between("tenant", "0003", "0001")
    with pytest.raises(UnknownRevisionError, match="no revision at all"):
        path_between("shared", "0001")


def test_two_heads_are_named(trees: Trees) -> None:
    _three(trees)
    trees.add("tenant", "0004_d", revision_text("0004", "0002"))
    with pytest.raises(RevisionError, match="2 heads, 0003, 0004: give one of them the newest revision"):
        revisions("tenant")


def test_two_beginnings_are_named(trees: Trees) -> None:
    _three(trees)
    trees.add("tenant", "0004_d", revision_text("0004", None))
    with pytest.raises(RevisionError, match="2 heads, 0003, 0004"):
        revisions("tenant")


def test_branches_that_were_merged_are_no_line(trees: Trees) -> None:
    _three(trees)
    trees.add("tenant", "0004_d", revision_text("0004", "0002"))
    trees.add("tenant", "0005_e", revision_text("0005", "?").replace("'?'", "('0003', '0004')"))
    with pytest.raises(RevisionError, match="a tree is one line, without branches, merges"):
        revisions("tenant")


def test_a_number_that_was_taken_twice_is_noticed(trees: Trees) -> None:
    _three(trees)
    trees.add("tenant", "0003_d", revision_text("0003", "0002"))
    with pytest.raises(RevisionError, match="0003 is present more than once"):
        revisions("tenant")


def test_a_revision_after_one_that_is_not_there_is_noticed(trees: Trees) -> None:
    trees.add("tenant", "0002_b", revision_text("0002", "0001"))
    with pytest.raises(RevisionError, match=r"the tree 'tenant' cannot be read: .*0001"):
        revisions("tenant")


def test_a_revision_that_is_written_while_we_run_is_read(trees: Trees) -> None:
    trees.add("tenant", "0001_a", revision_text("0001", None))
    assert len(revisions("tenant")) == 1
    assert revisions("tenant") is revisions("tenant")
    trees.add("tenant", "0002_b", revision_text("0002", "0001"))
    assert [revision.id for revision in revisions("tenant")] == ["0001", "0002"]


def test_a_revision_says_what_is_special_about_it(trees: Trees) -> None:
    attributes = 'online = True\nirreversible = "the plain text is gone"\naccepted = {"ban-drop-column": "unused"}'
    trees.add(
        "tenant",
        "0001_a",
        revision_text("0001", None, attributes=attributes, downgrade="raise NotImplementedError(irreversible)"),
    )
    (revision,) = revisions("tenant")
    assert revision.online
    assert revision.irreversible == "the plain text is gone"
    assert revision.accepted == {"ban-drop-column": "unused"}
    assert hash(revision)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ("online = 'yes'", "`online` is True or False, not 'yes'"),
        ("online = None", "`online` is True or False, not None"),
        ("irreversible = ' '", "`irreversible` is None, or a text that says why, not ' '"),
        ("irreversible = True", "`irreversible` is None, or a text that says why, not True"),
        ("irreversible = 'gone'", "it says that it is `irreversible`, and has a downgrade"),
        ("accepted = ['ban-drop-column']", "`accepted` is a dict of rules and reasons"),
        ("accepted = {'ban-drop-column': ''}", "`accepted` is a dict of rules and reasons"),
    ],
)
def test_an_attribute_of_another_kind_is_refused(trees: Trees, attributes: str, message: str) -> None:
    path = trees.add("tenant", "0001_a", revision_text("0001", None, attributes=attributes))
    with pytest.raises(RevisionError, match=message) as caught:
        revisions("tenant")
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(("downgrade", "message"), [("pass", "goes down by doing nothing"), (None, "has no downgrade")])
def test_what_cannot_be_undone_says_so_when_it_is_asked_to(trees: Trees, downgrade: str | None, message: str) -> None:
    trees.add("tenant", "0001_a", revision_text("0001", None, attributes="irreversible = 'gone'", downgrade=downgrade))
    with pytest.raises(RevisionError, match=message):
        revisions("tenant")


@pytest.mark.parametrize(
    ("downgrade", "kind"),
    [
        (None, "missing"),
        ("pass", "nothing"),
        ("...", "nothing"),
        ('"""Nothing to do."""', "nothing"),
        ("return", "nothing"),
        ("return None", "nothing"),
        ("raise NotImplementedError", "raises"),
        ('"""No."""\nraise RuntimeError("no")', "raises"),
        ("op.drop_table('box')", "real"),
        ("for name in ('a', 'b'):\n    op.drop_table(name)", "real"),
    ],
)
def test_a_downgrade_is_read_from_the_file(tmp_path: Path, downgrade: str | None, kind: str) -> None:
    path = tmp_path / "0001_a.py"
    path.write_text(revision_text("0001", None, downgrade=downgrade))
    assert read_downgrade(path) == kind
