"""Errors as the API speaks of them: RFC 9457 problem types, and the exceptions that raise them.

Every error answer is `application/problem+json`. Its `type` is the relative reference `/problems/<slug>`, which the
API itself serves, so the address in an error can be opened. `tenantry.kernel.http` turns exceptions into answers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import msgspec
from litestar.exceptions import HTTPException

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = (
    "BAD_REQUEST",
    "CONFLICT",
    "INTERNAL",
    "MALFORMED",
    "METHOD_NOT_ALLOWED",
    "NOT_AUTHENTICATED",
    "NOT_FOUND",
    "PAYLOAD_TOO_LARGE",
    "PERMISSION_DENIED",
    "REQUEST_TIMEOUT",
    "TIMEOUT",
    "TOO_MANY_REQUESTS",
    "UNAVAILABLE",
    "UNSUPPORTED_MEDIA_TYPE",
    "VALIDATION",
    "ApplicationException",
    "ClientException",
    "ConflictException",
    "FieldError",
    "MalformedRequestException",
    "MethodNotAllowedException",
    "NotAuthenticatedException",
    "PayloadTooLargeException",
    "PermissionDeniedException",
    "ProblemType",
    "RequestTimeoutException",
    "ResourceNotFoundException",
    "StatementTimeoutException",
    "TooManyRequestsException",
    "UnavailableException",
    "UnsupportedMediaTypeException",
    "ValidationFailedException",
    "define_problem",
    "problem_type",
    "problem_types",
)

REALM = "tenantry"
BLANK = "about:blank"
"""The slug of a problem that says no more than its status does (RFC 9457 §4.2.1)."""

RESERVED_MEMBERS = frozenset({"type", "title", "status", "detail", "instance", "requestId", "traceId", "errors"})

Source = Literal["body", "query", "path", "header", "cookie"]


@dataclass(frozen=True, slots=True)
class ProblemType:
    """A kind of error that clients may tell apart (RFC 9457 §4). The slug is part of the API and never changes."""

    slug: str
    status: int
    title: str
    description: str

    @property
    def uri(self) -> str:
        """A relative reference (RFC 3986 §4.2), so that it resolves on whatever host served the error."""
        return self.slug if self.slug == BLANK else f"/problems/{self.slug}"


_types: dict[str, ProblemType] = {}


def define_problem(slug: str, status: int, title: str, description: str) -> ProblemType:
    """Register a problem type, so that its address resolves and the documents list it.

    Raises:
        ValueError: the slug stands for another problem already, or the status is no error's.
    """
    if not 400 <= status <= 599:
        raise ValueError(f"{slug}: {status} is not the status of an error")
    problem = ProblemType(slug, status, title, description)
    if _types.setdefault(slug, problem) != problem:
        raise ValueError(f"{slug} is already the slug of another problem type")
    return problem


def problem_type(slug: str) -> ProblemType | None:
    """The registered type of that slug, or None."""
    return _types.get(slug)


def problem_types() -> tuple[ProblemType, ...]:
    """All registered types, by status and slug."""
    return tuple(sorted(_types.values(), key=lambda problem: (problem.status, problem.slug)))


BAD_REQUEST = define_problem(
    "bad-request", 400, "Bad request", "The request cannot be served as it was sent; the detail says why."
)
MALFORMED = define_problem(
    "malformed", 400, "Malformed request", "The body is not valid JSON in UTF-8, or it is missing."
)
NOT_AUTHENTICATED = define_problem(
    "not-authenticated",
    401,
    "Not authenticated",
    "The request carries no token, or one that is expired, revoked or not meant for this address. Log in again.",
)
PERMISSION_DENIED = define_problem(
    "permission-denied", 403, "Permission denied", "The caller is known, but may not do this."
)
NOT_FOUND = define_problem(
    "not-found", 404, "Not found", "There is nothing at this address, or nothing that the caller may know of."
)
METHOD_NOT_ALLOWED = define_problem(
    "method-not-allowed", 405, "Method not allowed", "The address exists; the Allow header lists its methods."
)
REQUEST_TIMEOUT = define_problem(
    "request-timeout", 408, "Request timed out", "The body did not arrive in time. The request may be sent again."
)
CONFLICT = define_problem(
    "conflict",
    409,
    "Conflict",
    "The request contradicts the present state: a name is taken, or a record is still referred to.",
)
PAYLOAD_TOO_LARGE = define_problem(
    "payload-too-large", 413, "Payload too large", "The body is larger than this deployment accepts."
)
UNSUPPORTED_MEDIA_TYPE = define_problem(
    "unsupported-media-type",
    415,
    "Unsupported media type",
    "Bodies are JSON in UTF-8 without a content coding: send Content-Type: application/json.",
)
VALIDATION = define_problem(
    "validation",
    422,
    "Validation failed",
    "The request could be read, but values in it are not acceptable. `errors` names each field as it is spelled in "
    "the request, where it was found, and what was expected of it.",
)
TOO_MANY_REQUESTS = define_problem(
    "too-many-requests",
    429,
    "Too many requests",
    "A rate limit of the organization or of the caller is used up. Retry-After says when to come back, in seconds.",
)
INTERNAL = define_problem(
    "internal",
    500,
    "Internal error",
    "Something went wrong on the server. The logs hold the cause under the request's id.",
)
UNAVAILABLE = define_problem(
    "unavailable",
    503,
    "Unavailable",
    "Something that the request needs is not answering at the moment. Retry-After says when to try again, in seconds; "
    "look first whether a request that creates something did so.",
)
TIMEOUT = define_problem(
    "timeout",
    503,
    "Timed out",
    "The request took longer than it may, and was ended. Retry-After says when to try again, in seconds.",
)


class FieldError(msgspec.Struct, frozen=True, kw_only=True):
    """One value that is not as expected.

    `field` is the path as the client spelled it (`members.0.userId`), empty for the body as a whole.
    """

    field: str
    source: Source = "body"
    message: str


class ApplicationException(HTTPException):
    """Base of all exceptions that know their problem type; on its own, an internal error.

    `detail` is shown to the client: it must hold nothing that the caller may not know. Extra keyword arguments
    become extension members of the problem (RFC 9457 §3.2) and must be JSON values.
    """

    problem: ProblemType = INTERNAL
    default_detail: ClassVar[str] = ""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.status_code = cls.problem.status  # Litestar reads the class's when a handler lists it in `raises`

    def __init__(
        self,
        detail: str = "",
        *,
        problem: ProblemType | None = None,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        if reserved := RESERVED_MEMBERS & members.keys():
            raise TypeError(f"reserved members of a problem: {', '.join(sorted(reserved))}")
        self.problem = problem or self.problem
        super().__init__(
            detail=detail or self.default_detail or self.problem.description,
            status_code=self.problem.status,
            headers=dict(headers or {}),
        )
        self.errors: tuple[FieldError, ...] = tuple(errors)
        self.members: dict[str, Any] = members


class ClientException(ApplicationException):
    """The request is at fault (400)."""

    problem = BAD_REQUEST


class MalformedRequestException(ClientException):
    """The body cannot be read at all (400)."""

    problem = MALFORMED


class ValidationFailedException(ClientException):
    """The request can be read, but fields in it are not as expected (422)."""

    problem = VALIDATION

    def __init__(
        self,
        detail: str = "",
        *,
        problem: ProblemType | None = None,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        errors = tuple(errors)
        if not detail and errors:
            fields = "One field is" if len(errors) == 1 else f"{len(errors)} fields are"
            detail = f"{fields} not as expected."
        super().__init__(detail, problem=problem, errors=errors, headers=headers, **members)

    @classmethod
    def of(cls, field: str, message: str, *, source: Source = "body") -> ValidationFailedException:
        """The usual case: one field, and what was expected of it."""
        return cls(errors=(FieldError(field=field, source=source, message=message),))


class NotAuthenticatedException(ClientException):
    """The request is without valid credentials (401); always with the challenge of RFC 6750 §3.

    `invalid_token` says that a token was sent and is no good, which clients may answer by refreshing it.
    """

    problem = NOT_AUTHENTICATED
    default_detail = "Send a valid token: 'Authorization: Bearer <token>'."

    def __init__(
        self,
        detail: str = "",
        *,
        invalid_token: bool = False,
        problem: ProblemType | None = None,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        challenge = f'Bearer realm="{REALM}"' + (', error="invalid_token"' if invalid_token else "")
        headers = {"WWW-Authenticate": challenge, **(headers or {})}
        super().__init__(detail, problem=problem, errors=errors, headers=headers, **members)


class PermissionDeniedException(ClientException):
    """The caller is known, but may not do this (403)."""

    problem = PERMISSION_DENIED


class ResourceNotFoundException(ClientException):
    """There is no such thing, or none that the caller may know of (404)."""

    problem = NOT_FOUND


class MethodNotAllowedException(ClientException):
    """The address has no such method (405). RFC 9110 §15.5.6 asks for `Allow`."""

    problem = METHOD_NOT_ALLOWED


class RequestTimeoutException(ClientException):
    """The body did not arrive in time (408)."""

    problem = REQUEST_TIMEOUT


class ConflictException(ClientException):
    """The request contradicts the present state (409)."""

    problem = CONFLICT


class PayloadTooLargeException(ClientException):
    """The body is over the limit (413)."""

    problem = PAYLOAD_TOO_LARGE


class UnsupportedMediaTypeException(ClientException):
    """The body is in no form that is understood (415)."""

    problem = UNSUPPORTED_MEDIA_TYPE


class _RetryLaterException(ApplicationException):
    """An answer that says when to come back, in whole seconds (RFC 9110 §10.2.3)."""

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after: int = 1,
        problem: ProblemType | None = None,
        errors: Iterable[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        **members: Any,
    ) -> None:
        headers = {"Retry-After": str(max(0, retry_after)), **(headers or {})}
        super().__init__(detail, problem=problem, errors=errors, headers=headers, **members)


class TooManyRequestsException(_RetryLaterException, ClientException):
    """A rate limit is used up (429)."""

    problem = TOO_MANY_REQUESTS


class UnavailableException(_RetryLaterException):
    """Something that the request needs is not answering (503)."""

    problem = UNAVAILABLE


class StatementTimeoutException(_RetryLaterException):
    """The request was ended because it took too long (503)."""

    problem = TIMEOUT
