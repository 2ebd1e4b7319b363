"""The documents name only what there is: files, headings, modules, settings, commands and make's targets."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import rich_click as click

from tenantry.cli import _COMMANDS
from tenantry.kernel.settings import Settings
from tests.docs.blocks import DOCS, ROOT, read_blocks

DOCUMENTS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])
EXAMPLE = DOCS / "add-a-resource.md"

_FENCE = re.compile(r"^(```|~~~).*?^\1$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^()\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+?)\s*#*$", re.MULTILINE)
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"(?:src|migrations|tests|docs|benchmarks|requirements|scripts|tenants|\.ci)/[\w./-]*")
_OPTION = re.compile(r"--[a-z-]+")
_MODULE = re.compile(r"tenantry(?:\.\w+)+")
_VARIABLE = re.compile(r"TENANTRY_[A-Z_]+\b(?!…)")
# Of the embedded servers' binaries, read by `tenantry.dev`: no settings of the service.
_OTHER_VARIABLES = {"TENANTRY_POSTGRES_BIN", "TENANTRY_VALKEY_BIN"}


def _prose(document: Path) -> str:
    return _FENCE.sub("", document.read_text())


def _anchors(document: Path) -> set[str]:
    """The headings' anchors, as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(_prose(document)):
        plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = base = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        number = 0
        while anchor in found:
            number += 1
            anchor = f"{base}-{number}"
        found.add(anchor)
    return found


def _made_by_the_example() -> set[str]:
    made = {block.path for block in read_blocks(EXAMPLE)}
    return made | {f"{parent}/" for path in made for parent in map(str, Path(path).parents)}


def _name(document: Path) -> str:
    return str(document.relative_to(ROOT))


def test_there_are_documents() -> None:
    assert len(DOCUMENTS) > 20


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_links_lead_somewhere(document: Path) -> None:
    broken = []
    for link in _LINK.findall(_prose(document)):
        if re.match(r"https?:|mailto:", link):
            continue
        target, _, anchor = unquote(link).partition("#")
        path = (document.parent / target).resolve() if target else document
        if not path.exists() or not path.is_relative_to(ROOT) or (anchor and anchor not in _anchors(path)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_paths_that_are_named_exist(document: Path) -> None:
    made = _made_by_the_example() if document == EXAMPLE else set()
    named = {path for code in _CODE.findall(_prose(document)) if (path := code.strip()) and _PATH.fullmatch(path)}
    assert not {path for path in named if not (ROOT / path).exists() and path not in made}


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_modules_that_are_named_exist(document: Path) -> None:
    missing = set()
    for code in _CODE.findall(_prose(document)):
        if not _MODULE.fullmatch(code):
            continue
        try:
            importlib.import_module(code)
        except ModuleNotFoundError:
            module, _, attribute = code.rpartition(".")
            if not hasattr(importlib.import_module(module), attribute):
                missing.add(code)
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_settings_commands_and_targets_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    settings = {f"TENANTRY_{field.upper()}" for field in Settings.model_fields} | _OTHER_VARIABLES
    # `TENANTRY_PASSWORD_HASH_…` stands for all that begin so.
    assert not {name for name in _VARIABLE.findall(text) if name not in settings and not name.endswith("_")}
    commands = re.findall(r"(?:^|`|\$ |bin/)tenantry (\w[\w-]*)", text, re.MULTILINE)
    assert not set(commands) - _COMMANDS.keys()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert not set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) - targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_commands_that_are_named_have_the_options_that_they_are_named_with(document: Path) -> None:
    wrong = []
    for code in _CODE.findall(" ".join(_prose(document).split())):
        words = code.replace("[", "").replace("]", "").split()
        if words[:1] != ["tenantry"] or words[1:2] == ["--help"]:
            continue
        if not set(filter(_OPTION.fullmatch, words)) <= _options(words[1:]):
            wrong.append(code)
    assert not wrong


def _options(words: list[str]) -> set[str]:
    """Those of the command that the words begin with, and of none if there is no such command."""
    command: click.Command | None = None
    for word in words:
        if command is None:
            if word not in _COMMANDS:
                break
            command = getattr(importlib.import_module(_COMMANDS[word][0]), word.replace("-", "_"))
        elif isinstance(command, click.Group) and word in command.commands:
            command = command.commands[word]
        else:
            break
    return (
        set()
        if command is None
        else {name for option in command.params for name in (*option.opts, *option.secondary_opts)} | {"--help"}
    )


@pytest.mark.parametrize("document", DOCUMENTS, ids=_name)
def test_names_in_code_of_modules_that_are_mentioned_exist(document: Path) -> None:
    """`name` in `tenantry.module` or `src/…/module.py`: the module has it, or a class of it does."""
    missing = set()
    for name, place in re.findall(
        r"`([A-Za-z_][\w.]*)(?:\([^`]*\))?` in `((?:tenantry\.|src/tenantry/)[\w./]+)`", _prose(document)
    ):
        module = importlib.import_module(place.removeprefix("src/").removesuffix(".py").replace("/", "."))
        first, _, rest = name.partition(".")
        classes = [value for value in vars(module).values() if isinstance(value, type)]
        holders = [module] if hasattr(module, first) else [cls for cls in classes if hasattr(cls, first)]
        if not holders or (rest and not any(hasattr(getattr(holder, first), rest) for holder in holders)):
            missing.add((name, place))
    assert not missing


def test_each_decision_is_in_the_index_and_has_all_parts() -> None:
    records = sorted(path.name for path in (DOCS / "decisions").glob("0*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    index = (DOCS / "decisions/README.md").read_text()
    for name in records:
        text = (DOCS / "decisions" / name).read_text()
        title = re.match(rf"# {int(name[:4])}\. (.+)\n", text)
        assert title is not None, name
        assert f"| [{name[:4]}]({name}) | {title[1]} |" in index
        parts = re.findall(r"^## (.+)$", text, re.MULTILINE)
        assert parts == ["Context", "Decision", "Consequences", "Alternatives", "What enforces it"], name
