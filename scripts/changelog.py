"""What CHANGELOG.md says of one version: the text of its release.

python scripts/changelog.py 1.2.0          its section, without the heading
python scripts/changelog.py --check v1.2.0  whether a tag is the version that pyproject.toml and the CHANGELOG have
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
_HEADING = re.compile(r"^## (?:\[(?P<linked>[^\]\n]+)\]|(?P<plain>\S+))[^\n]*$", re.MULTILINE)
_LINK = re.compile(r"^\[[^\]\n]+\]: \S+$\n?", re.MULTILINE)


def section_of(text: str, version: str) -> str:
    """A version's section, without its heading and the links at the file's end.

    Raises:
        LookupError: there is none, more than one, or nothing in it.
    """
    headings = list(_HEADING.finditer(text))
    found = [number for number, match in enumerate(headings) if (match["linked"] or match["plain"]) == version]
    if len(found) != 1:
        raise LookupError(f"CHANGELOG.md has {len(found)} sections of {version}, expected one: ## {version}")
    following = headings[found[0] + 1 :]
    body = text[headings[found[0]].end() : following[0].start() if following else len(text)]
    section = _LINK.sub("", body).strip()
    if not section:
        raise LookupError(f"CHANGELOG.md says nothing of {version}")
    return f"{section}\n"


def check_tag(tag: str, pyproject: str, changelog: str) -> None:
    """Whether `tag` is `v` and the project's version, of which the CHANGELOG tells.

    Raises:
        LookupError: it is not.
    """
    version = tomllib.loads(pyproject)["project"]["version"]
    if tag != f"v{version}":
        raise LookupError(f"the tag is {tag}, but pyproject.toml has the version {version}")
    section_of(changelog, version)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version")
    parser.add_argument("--check", action="store_true", help="check a tag, and print nothing")
    given = parser.parse_args(arguments)
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    try:
        if given.check:
            check_tag(given.version, (ROOT / "pyproject.toml").read_text("utf-8"), changelog)
        else:
            sys.stdout.write(section_of(changelog, given.version))
    except LookupError as error:
        print(f"Error: {error}", file=sys.stderr)  # noqa: T201 - a script's words
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
