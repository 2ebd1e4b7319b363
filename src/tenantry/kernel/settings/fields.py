"""What a setting is made of: its field, its variable, what it takes in words, and its value as it may be shown."""

from __future__ import annotations

from typing import Any, get_args

from annotated_types import Ge, Gt, Le
from pydantic import Field, SecretStr
from pydantic.fields import FieldInfo

from tenantry.kernel.settings.addresses import redact_url

__all__ = ("PREFIX", "expected", "is_address", "seconds", "shown", "text", "variable_of", "whole")

PREFIX = "TENANTRY_"


def seconds(default: float, *, most: float, description: str, none: bool = False) -> Any:
    """A field of type float: a time above 0, or with `none` 0 as well, and up to `most`, in seconds."""
    return Field(
        default,
        gt=None if none else 0,
        ge=0 if none else None,
        le=most,
        allow_inf_nan=False,
        description=description,
        json_schema_extra={"unit": "seconds"},
    )


def whole(default: int, *, least: int, most: int, description: str, unit: str = "") -> Any:
    """A field of type int, from `least` to `most`."""
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": unit})


def text(default: Any, *, expects: str, description: str) -> Any:
    """A field of any other type; `expects` says what it takes, and stands in the message where it is given another."""
    return Field(default, description=description, json_schema_extra={"expects": expects})


def variable_of(name: str) -> str:
    """The environment's variable of a setting."""
    return PREFIX + name.upper()


def expected(field: FieldInfo) -> str:
    """What a setting takes, in words: `a whole number from 1 to 65535`."""
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if "expects" in extra:
        return str(extra["expects"])
    choices = get_args(field.annotation)
    if choices:
        return "one of " + ", ".join(map(str, choices))
    noun = "a whole number" if field.annotation is int else "a number"
    unit = f" ({extra['unit']})" if extra.get("unit") else ""
    return f"{noun} {_bounds(field)}{unit}"


def is_address(name: str) -> bool:
    """Whether a setting is an address, which may have a password in it."""
    return name.endswith("_url")


def shown(name: str, value: object) -> str | None:
    """A setting's value as text, without secrets: of an address the password is left out, of a secret all of it."""
    if value is None:
        return None
    if isinstance(value, SecretStr):
        if not is_address(name):
            return "***"
        value = value.get_secret_value()
    if is_address(name):
        return redact_url(str(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _bounds(field: FieldInfo) -> str:
    least = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    above = next((bound.gt for bound in field.metadata if isinstance(bound, Gt)), None)
    most = next(bound.le for bound in field.metadata if isinstance(bound, Le))
    return f"above {above} and up to {most}" if least is None else f"from {least} to {most}"
