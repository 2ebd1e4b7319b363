"""Errors as SCIM has them (RFC 7644 §3.12): directories read no problem details."""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from scim2_models import Error

from tenantry.kernel.errors import (
    BLANK,
    MALFORMED,
    VALIDATION,
    ApplicationException,
    ClientException,
    ProblemType,
)
from tenantry.kernel.http import ErrorForm

if TYPE_CHECKING:
    from scim2_models import SCIMException

__all__ = ("SCIM_ERRORS", "SCIM_JSON", "SCIM_ROOT", "as_refusal")

SCIM_ROOT = "/api/scim/v2"
SCIM_JSON = "application/scim+json"
_SCHEMA = str(Error.__schema__)
_TYPES = {MALFORMED.slug: "invalidSyntax", VALIDATION.slug: "invalidValue"}


def as_refusal(error: SCIMException) -> ApplicationException:
    """What the SCIM libraries refuse, as an exception that ends the request like any other: nothing is kept of it."""
    found = error.to_error()
    status = found.status or HTTPStatus.INTERNAL_SERVER_ERROR
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return ApplicationException()
    phrase = HTTPStatus(status).phrase
    return ClientException(
        found.detail or phrase, problem=ProblemType(BLANK, status, phrase, phrase), scimType=found.scim_type
    )


def _encode(error: ApplicationException, detail: str) -> dict[str, Any]:
    told = "; ".join(f"{each.field}: {each.message}" if each.field else each.message for each in error.errors)
    body = {
        "schemas": [_SCHEMA],
        "status": str(SCIM_ERRORS.status(error.status_code)),
        "scimType": error.members.get("scimType") or _TYPES.get(error.problem.slug),
        "detail": told or detail,
    }
    return {name: value for name, value in body.items() if value is not None}


SCIM_ERRORS = ErrorForm(
    name="ScimError",
    prefix=f"{SCIM_ROOT}/",
    media_type=SCIM_JSON,
    # SCIM has no 422: what can be read and is not acceptable is a 400 with a `scimType`.
    statuses={422: 400},
    encode=_encode,
    schema={
        "type": "object",
        "title": "ScimError",
        "description": "An error of SCIM (RFC 7644, section 3.12).",
        "required": ["schemas", "status", "detail"],
        "additionalProperties": False,
        "properties": {
            "schemas": {"type": "array", "items": {"type": "string", "const": _SCHEMA}},
            "status": {"type": "string", "pattern": "^[45][0-9][0-9]$"},
            "scimType": {"type": "string", "description": "What kind of 400 or 409 it is."},
            "detail": {"type": "string"},
        },
    },
)
