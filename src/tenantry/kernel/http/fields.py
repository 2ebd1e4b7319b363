"""What msgspec and Litestar say about bad values, as field errors that name the fields as clients spell them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, cast

import msgspec
from litestar.params import ParameterKwarg
from msgspec import NODEFAULT

from tenantry.kernel.errors import FieldError, MalformedRequestException, ValidationFailedException
from tenantry.kernel.schema import PATTERN_MEANING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from litestar import Request
    from litestar.exceptions import ValidationException

    from tenantry.kernel.errors import Source

__all__ = ("collect_errors", "explain_parameters", "field_error", "nul_errors", "unstorable")

NUL_MESSAGE = "Expected text without NUL characters"

_AT = re.compile(r" - at (?:`key` in )?`\$([^`]*)`$")
_NAMED = re.compile(r"^Object (?:contains (unknown)|missing (required)) field `(.*)`$", re.DOTALL)
_STEP = re.compile(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]")
_MISSING = re.compile(r"^(?:\d+: )?Missing required (\w+) parameter '([^']+)' for path")
_PATTERNS = {f"Expected `str` matching regex {pattern!r}": text for pattern, text in PATTERN_MEANING.items()}
_SOURCES = frozenset({"body", "query", "path", "header", "cookie"})


def field_error(message: str, prefix: str = "", source: Source = "body") -> FieldError:
    """Read msgspec's message ("Expected `int`, got `str` - at `$.members[0].userId`").

    A value of a mapping is at `*`: msgspec does not tell its key.
    """
    path = [prefix] if prefix else []
    if at := _AT.search(message):
        message = message[: at.start()]
        path += [name or ("*" if index == "..." else index) for name, index in _STEP.findall(at.group(1))]
    if named := _NAMED.match(message):
        unknown, _, name = named.groups()
        path.append(name)
        message = "Unknown field" if unknown else "Required field, but missing"
    return FieldError(field=".".join(path), source=source, message=_PATTERNS.get(message, message))


def collect_errors(kind: Any, value: Any, first: str) -> tuple[FieldError, ...]:
    """All errors of a body, where msgspec stops at the first, whose message is `first`.

    Only fields of the outermost object are told apart; within each, the first error counts.
    """
    if not (isinstance(kind, type) and issubclass(kind, msgspec.Struct) and isinstance(value, dict)):
        return (field_error(first),)
    found: list[FieldError] = []
    fields = {field.encode_name: field for field in msgspec.structs.fields(kind)}
    for name, field in fields.items():
        if name not in value:
            if field.default is NODEFAULT and field.default_factory is NODEFAULT:
                found.append(FieldError(field=name, message="Required field, but missing"))
            continue
        try:
            msgspec.convert(value[name], field.type)
        except msgspec.ValidationError as error:
            found.append(field_error(str(error), name))
    config = kind.__struct_config__
    if config.forbid_unknown_fields:
        known = {*fields, config.tag_field}
        found += [FieldError(field=str(name), message="Unknown field") for name in value if name not in known]
    return tuple(found) or (field_error(first),)


def unstorable(text: str) -> str | None:
    """Why PostgreSQL cannot store a text, or None: NUL in it, or half a surrogate pair, which is no Unicode text."""
    if "\x00" in text:
        return NUL_MESSAGE
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            return "Expected Unicode text"
    return None


def nul_errors(value: Any) -> tuple[FieldError, ...]:
    """The fields of a decoded JSON value that hold a NUL character, in keys or in texts."""
    return tuple(FieldError(field=".".join(path), message=NUL_MESSAGE) for path in _nul_paths(value))


def _nul_paths(value: Any) -> Iterator[tuple[str, ...]]:
    pending: list[tuple[tuple[str, ...], Any]] = [((), value)]
    while pending:
        path, item = pending.pop()
        if isinstance(item, str):
            if "\x00" in item:
                yield path
        elif isinstance(item, dict):
            for key, inner in item.items():
                if "\x00" in key:
                    yield (*path, key.replace("\x00", "\N{SYMBOL FOR NULL}"))
                pending.append(((*path, key), inner))
        elif isinstance(item, list):
            pending += [((*path, str(index)), inner) for index, inner in enumerate(item)]


def explain_parameters(
    error: ValidationException, request: Request[Any, Any, Any]
) -> ValidationFailedException | MalformedRequestException:
    """Litestar's verdict on parameters, with their names on the wire: it names Python's, and quotes the query."""
    if missing := _MISSING.match(error.detail):
        source, name = missing.groups()
        return ValidationFailedException.of(name, "Required, but missing", source=_source(source))
    found = []
    for item in error.extra if isinstance(error.extra, list) else ():
        name, message = str(item.get("key", "")), str(item.get("message", ""))
        if name == "data" and message == "'data'":
            # The body was empty: Litestar reports the KeyError of its own look-up.
            return MalformedRequestException("A JSON body is expected, but there is none.")
        head, _, rest = name.partition(".")
        if (parameter := _parameter(request, head)) is not None:
            prefix = ".".join(part for part in (parameter.name or head, rest) if part)
            found.append(field_error(message, prefix, _source(parameter.param_type.value)))
        else:
            found.append(field_error(message, "" if name == "data" else name, _source(item.get("source", "query"))))
    return ValidationFailedException(errors=found) if found else ValidationFailedException(error.detail)


def _source(name: Any) -> Source:
    name = str(getattr(name, "value", name))
    return cast("Source", name) if name in _SOURCES else "query"


def _parameter(request: Request[Any, Any, Any], name: str) -> ParameterKwarg | None:
    """How the handler, or a dependency of it, declares the parameter that it calls `name`."""
    handler = request.route_handler
    signatures = [handler.parsed_fn_signature]
    signatures += [dependency.parsed_fn_signature for dependency in handler.resolve_dependencies().values()]
    for signature in signatures:
        field = cast("Mapping[str, Any]", signature.parameters).get(name)
        if field is not None and isinstance(field.kwarg_definition, ParameterKwarg):
            return field.kwarg_definition
    return None
