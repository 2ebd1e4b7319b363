"""How bodies and path parameters are read: strictly, and never with text that PostgreSQL cannot store.

Litestar decodes a body untyped and converts it leniently: `"5"` for an integer and `"true"` for a boolean pass,
invalid UTF-8 and deep nesting end as a 500. Here a body is decoded once, straight into the handler's type.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary

import msgspec
from litestar import Request
from litestar.serialization import default_deserializer
from litestar.types import Empty

from tenantry.kernel.errors import MalformedRequestException, ValidationFailedException
from tenantry.kernel.http.fields import collect_errors, nul_errors, unstorable

if TYPE_CHECKING:
    from litestar.handlers import HTTPRouteHandler

__all__ = ("ApiRequest",)

_ESCAPED_NUL = b"\\u0000"

_decoders: WeakKeyDictionary[HTTPRouteHandler, msgspec.json.Decoder[Any]] = WeakKeyDictionary()


def _decoder(handler: HTTPRouteHandler) -> msgspec.json.Decoder[Any]:
    """The strict decoder of the handler's `data`; untyped for handlers that declare none."""
    found = _decoders.get(handler)
    if found is None:
        field = handler.parsed_fn_signature.parameters.get("data")
        hook = partial(default_deserializer, type_decoders=handler.resolve_type_decoders())
        found = _decoders[handler] = msgspec.json.Decoder(Any if field is None else field.annotation, dec_hook=hook)
    return found


def _decode(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    if _ESCAPED_NUL in body and (errors := nul_errors(_untyped(body))):
        raise ValidationFailedException(errors=errors)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        return _second_reading(decoder, _untyped(body), str(error))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from None


def _second_reading(decoder: msgspec.json.Decoder[Any], value: Any, message: str) -> Any:
    """Name all that is wrong; or accept the body after all, if it only spells integers as 1.0.

    Such a number is an integer to JSON Schema (2020-12 §6.1.1), by which clients check what they send.
    """
    whole = _whole_numbers(value)
    try:
        return msgspec.convert(whole, decoder.type, dec_hook=decoder.dec_hook)
    except msgspec.ValidationError:
        raise ValidationFailedException(errors=collect_errors(decoder.type, whole, message)) from None


def _whole_numbers(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _whole_numbers(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_whole_numbers(inner) for inner in value]
    return value


def _untyped(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.ValidationError as error:
        # A number beyond all floats is valid JSON (RFC 8259 §6), but no value can be made of it.
        raise ValidationFailedException(errors=collect_errors(Any, None, str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _malformed(error) from None


def _malformed(error: Exception) -> MalformedRequestException:
    if isinstance(error, UnicodeDecodeError):
        return MalformedRequestException("The body is not UTF-8.")
    if isinstance(error, RecursionError):
        return MalformedRequestException("The body is nested too deeply.")
    return MalformedRequestException(f"The body is not valid JSON: {error}.")


class ApiRequest(Request[Any, Any, Any]):
    """Litestar's request with strict reading of bodies and paths; set it as the application's `request_class`."""

    __slots__ = ()

    @property
    def path_params(self) -> dict[str, Any]:
        """The path's parameters.

        Raises:
            ValidationFailedException: one of them is no text that can be stored.
        """
        params = cast("dict[str, Any]", self.scope["path_params"])
        for name, value in params.items():
            if isinstance(value, str) and (expected := unstorable(value)) is not None:
                raise ValidationFailedException.of(name, expected, source="path")
        return params

    async def json(self) -> Any:
        """The body, as the type of the handler's `data` where it has one.

        Raises:
            MalformedRequestException: it is not JSON in UTF-8.
            ValidationFailedException: it is not what the handler takes, or holds NUL characters.
        """
        if self._json is Empty:
            self._json = _decode(_decoder(self.route_handler), await self.body() or b"null")
        return self._json
