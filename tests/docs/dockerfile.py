"""The Dockerfile, read."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass

from tests.docs.blocks import ROOT

__all__ = ("Instruction", "stages", "values")


@dataclass(frozen=True)
class Instruction:
    word: str
    value: str


@functools.cache
def stages() -> dict[str, list[Instruction]]:
    """The instructions of each stage by its name; the last has the name ``."""
    text = re.sub(r"^\s*#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    text = re.sub(r"\\\n\s*", "", text)
    found: dict[str, list[Instruction]] = {"ARG": []}
    current = found["ARG"]
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, value = line.partition(" ")
        if word == "FROM":
            _, _, name = value.partition(" AS ")
            current = found.setdefault(name, [])
        current.append(Instruction(word, value.strip()))
    return found


def values(word: str, stage: str = "") -> list[str]:
    """What follows a word, in each of its instructions in a stage."""
    return [instruction.value for instruction in stages()[stage] if instruction.word == word]
