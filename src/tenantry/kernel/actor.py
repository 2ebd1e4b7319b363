"""Who acts at the command line, as the audit trail names them."""

from __future__ import annotations

import os
import pwd

__all__ = ("cli_actor",)


def cli_actor() -> str:
    """Who sits at the command line, as far as the system knows.

    Not `getpass.getuser()`, which asks the environment first: anybody could act in somebody else's name.
    """
    number = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(number).pw_name}"
    except KeyError:
        # A container may run under a number that no account has.
        return f"cli:{number}"
