"""Print what building the project needs, one requirement a line: the backend, and its part for editable installs."""

import sys
import tomllib
from pathlib import Path

pyproject = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
# hatchling asks for `editables` only when it builds an editable wheel, through PEP 660's get_requires hook.
sys.stdout.write("\n".join([*pyproject["build-system"]["requires"], "editables>=0.5"]) + "\n")
