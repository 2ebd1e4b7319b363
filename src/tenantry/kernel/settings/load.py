"""Read the settings from the environment, and say all that is wrong with it at once."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import Any, get_args

from pydantic import SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from tenantry.kernel.settings.addresses import redact_url
from tenantry.kernel.settings.fields import PREFIX, expected, is_address, shown, variable_of
from tenantry.kernel.settings.model import Settings

__all__ = ("SettingsError", "load_settings")

_FOREIGN = ("TENANTRY_POSTGRES_BIN", "TENANTRY_VALKEY_BIN")
_FOREIGN_PREFIX = "TENANTRY_TEST_"

# Kubernetes puts the address of every Service of the namespace into every container; for one that is called
# `tenantry` or `tenantry-api` these names begin like ours (kubernetes.io, "Accessing the Service": environment).
_SERVICE_LINK = re.compile(
    r"TENANTRY_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)


class SettingsError(Exception):
    """The environment does not describe a service that may run. The text lists everything that is wrong.

    It never holds a secret: of an address the password is left out, of a key or an unknown variable the value.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        count = len(self.problems)
        head = "1 setting is wrong:" if count == 1 else f"{count} settings are wrong:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `env` (default: the process's environment).

    An unknown variable of our prefix is an error, since a misspelt one would silently leave a default in force; so is
    an empty one, since it is what a missing secret looks like (cors_origins excepted, where it means none).

    Raises:
        SettingsError: something is wrong; its text lists all of it, without secrets.
    """
    env = os.environ if env is None else env
    variables = {variable_of(name): name for name in Settings.model_fields}
    problems: dict[str, str] = {}
    given: dict[str, str] = {}
    for variable, value in sorted(env.items()):
        if not variable.upper().startswith(PREFIX):
            continue
        if variable not in variables:
            if not _is_foreign(variable, value):
                close = difflib.get_close_matches(variable.upper(), variables, n=1, cutoff=0.8)
                hint = f"; {close[0]} was meant?" if close else ""
                problems[variable] = f"{variable}: there is no such setting{hint}"
        elif not value.strip() and variables[variable] != "cors_origins":
            wanted = expected(Settings.model_fields[variables[variable]])
            problems[variable] = f"{variable}: is set but empty; expected {wanted}, or leave it unset"
        else:
            given[variable] = value
    try:
        settings = Settings(**_Environment(given)())
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            variable = variable_of(name)
            if variable not in problems:
                problems[variable] = f"{variable}: {_got(name, given)}, expected {_reason(name, detail)}"
    else:
        if not problems:
            return settings
    # Raised outside the handler: as its context, the ValidationError would bring the input back into tracebacks.
    raise SettingsError(problems.values())


class _Environment(EnvSettingsSource):
    """The variables of a given mapping instead of `os.environ`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._env.items()}


def _is_foreign(variable: str, value: str) -> bool:
    """Whether a variable with our prefix is somebody else's: our tests', the embedded servers', Kubernetes'."""
    if variable in _FOREIGN or variable.startswith(_FOREIGN_PREFIX):
        return True
    if _SERVICE_LINK.fullmatch(variable) is not None:
        return True
    # `TENANTRY_HTTP_PORT=80` is a mistake of ours, `TENANTRY_API_PORT=tcp://10.0.0.1:80` is Kubernetes.
    return variable.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None


def _got(name: str, given: Mapping[str, str]) -> str:
    field = Settings.model_fields[name]
    value = given.get(variable_of(name))
    if value is None:
        default = shown(name, field.default)
        return "is not set" if default is None else f"is {default} by default"
    if SecretStr in get_args(field.annotation) and not is_address(name):
        return "got (not shown)"
    if is_address(name) or "://" in value or "@" in value:
        got = redact_url(value)
        if name == "port" and _SERVICE_ADDRESS.match(value):
            got += " (from Kubernetes: set enableServiceLinks: false in the pod's spec)"
    else:
        got = ascii(value if len(value) <= 80 else value[:80] + "…")
    return f"got {got}"


def _reason(name: str, detail: Mapping[str, Any]) -> str:
    cause = detail.get("ctx", {}).get("error") if detail["type"] == "value_error" else None
    return str(cause) if cause is not None else expected(Settings.model_fields[name])
