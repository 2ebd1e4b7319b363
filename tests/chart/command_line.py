"""Command lines, read as the command line itself reads them, and not carried out."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import pytest
import rich_click as click

from tenantry.cli import tenantry

__all__ = ("parse",)


def parse(arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Take `tenantry`'s arguments, without the files that they name: those are in the container.

    Raises:
        click.UsageError: There is no such command, option or argument, or its value is not what is expected.
    """
    context: click.Context = click.Context(tenantry)
    command: click.Command = tenantry
    rest = list(arguments)
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None, shlex.join(arguments)
        command = found
        for parameter in command.params:
            if isinstance(parameter.type, click.Path):
                monkeypatch.setattr(parameter.type, "exists", False)
        if not isinstance(command, click.Group):
            command.make_context(name, rest, parent=context)
