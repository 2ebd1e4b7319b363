"""Exceptions to answers: one handler for everything that can be raised, inside Litestar and around it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import msgspec
import structlog
from litestar import Controller, Request, Response, get
from litestar.exceptions import HTTPException, SerializationException, ValidationException
from litestar.params import FromPath

from tenantry.kernel.errors import (
    BAD_REQUEST,
    BLANK,
    CONFLICT,
    INTERNAL,
    METHOD_NOT_ALLOWED,
    NOT_AUTHENTICATED,
    NOT_FOUND,
    PAYLOAD_TOO_LARGE,
    PERMISSION_DENIED,
    REQUEST_TIMEOUT,
    TOO_MANY_REQUESTS,
    UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
    VALIDATION,
    ApplicationException,
    ClientException,
    MalformedRequestException,
    NotAuthenticatedException,
    ProblemType,
    ResourceNotFoundException,
    problem_type,
    problem_types,
)
from tenantry.kernel.http.failures import explain_failure, hide_parameters, sqlstate_of
from tenantry.kernel.http.fields import explain_parameters
from tenantry.kernel.metrics import UNMATCHED, problem_seen
from tenantry.kernel.schema import BaseStruct
from tenantry.kernel.security import KeyFileError, SealError

if TYPE_CHECKING:
    from litestar.types import ExceptionHandlersMap, Scope, Send

__all__ = (
    "PROBLEM_JSON",
    "ErrorForm",
    "ProblemController",
    "answer_errors_in",
    "error_form_of",
    "exception_handlers",
    "explain",
    "problem_response",
    "send_problem",
)

PROBLEM_JSON = "application/problem+json"

_log = structlog.get_logger("tenantry.errors")

_BY_STATUS = {
    problem.status: problem
    for problem in (
        BAD_REQUEST,
        NOT_AUTHENTICATED,
        PERMISSION_DENIED,
        NOT_FOUND,
        METHOD_NOT_ALLOWED,
        REQUEST_TIMEOUT,
        CONFLICT,
        PAYLOAD_TOO_LARGE,
        UNSUPPORTED_MEDIA_TYPE,
        VALIDATION,
        TOO_MANY_REQUESTS,
        INTERNAL,
        UNAVAILABLE,
    )
}


def explain(error: Exception, request: Request[Any, Any, Any] | None, scope: Scope) -> ApplicationException:
    """The answer to any exception. What is not recognised is an internal error that tells nothing."""
    if isinstance(error, ApplicationException):
        return error
    if isinstance(error, ExceptionGroup):
        # Litestar ends generator dependencies in a task group, so a failed commit may arrive wrapped.
        return max((explain(inner, request, scope) for inner in error.exceptions), key=lambda found: found.status_code)
    if (found := explain_failure(error)) is not None:
        return found
    if isinstance(error, ValidationException) and request is not None:
        return explain_parameters(error, request)
    if isinstance(error, HTTPException):
        return _explain_http(error, scope)
    return ApplicationException()


def _explain_http(error: HTTPException, scope: Scope) -> ApplicationException:
    status = error.status_code
    headers = error.headers
    detail = error.detail if error.detail != _phrase(status) else ""
    if status >= 500 and status != UNAVAILABLE.status:
        return ApplicationException()
    if isinstance(error.__cause__, SerializationException):
        return MalformedRequestException(f"The body is not valid JSON: {error.__cause__}")
    if status == NOT_AUTHENTICATED.status:
        sent = any(name == b"authorization" for name, _ in scope["headers"])
        return NotAuthenticatedException(detail, invalid_token=sent, headers=headers)
    if status == NOT_FOUND.status:
        return ResourceNotFoundException(detail or "There is nothing at this address.", headers=headers)
    problem = _BY_STATUS.get(status) or ProblemType(BLANK, status, _phrase(status), _phrase(status))
    kind = ClientException if status < 500 else ApplicationException
    return kind(detail, problem=problem, headers=headers)


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


@dataclass(frozen=True, slots=True)
class ErrorForm:
    """How errors are told to clients of another protocol, which reads no problem details."""

    name: str
    """In the OpenAPI document, where it is the name of `schema`."""
    prefix: str
    """Of the paths whose errors have this form, wherever they come up: in a route, before one, or for want of one."""
    media_type: str
    statuses: Mapping[int, int]
    """Statuses that the protocol gives another number."""
    encode: Callable[[ApplicationException, str], Any]
    """The body, of the error and the text that is shown of it."""
    schema: Mapping[str, Any]
    """The body's JSON schema."""

    def status(self, status: int) -> int:
        return self.statuses.get(status, status)


_forms: dict[str, ErrorForm] = {}


def answer_errors_in(form: ErrorForm) -> None:
    """Answer errors below the form's prefix in that form.

    Raises:
        ValueError: there is another form for that prefix.
    """
    if _forms.setdefault(form.prefix, form) is not form:
        raise ValueError(f"errors below {form.prefix} have a form already")


def error_form_of(path: str) -> ErrorForm | None:
    """The form of errors at that path, or None where they are problem details."""
    return next((form for form in _forms.values() if path.startswith(form.prefix)), None)


def _written(error: ApplicationException, scope: Scope) -> tuple[int, bytes, str]:
    """Status, body and media type of an error's answer."""
    form = error_form_of(scope["path"])
    if form is None:
        return error.status_code, _encode(error, scope), PROBLEM_JSON
    body = msgspec.json.encode(form.encode(error, _detail(error, scope)))
    return form.status(error.status_code), body, form.media_type


def _detail(error: ApplicationException, scope: Scope) -> str:
    if error.problem.status == INTERNAL.status:
        return f"{INTERNAL.description} Request id: {scope.get('state', {}).get('request_id')}."
    return error.detail


def _encode(error: ApplicationException, scope: Scope) -> bytes:
    state = scope.get("state", {})
    problem = error.problem
    return msgspec.json.encode(
        {
            "type": problem.uri,
            "title": problem.title,
            "status": problem.status,
            "detail": _detail(error, scope),
            # A URI reference, so percent-encoded; also what keeps half a surrogate pair in a path from failing here.
            "instance": quote(scope["path"].encode("utf-8", "replace")),
            "requestId": state.get("request_id"),
            "traceId": state.get("trace_id"),
            "errors": error.errors,
            **error.members,
        }
    )


def _record(error: Exception, found: ApplicationException, scope: Scope) -> None:
    """Count the answer, and log what operators must see: our own errors in full, failures of backing services."""
    problem_seen(found.problem.slug if found.problem.slug != BLANK else f"http-{found.status_code}")
    if found.status_code < 500:
        return
    hide_parameters(error)
    method, route = scope.get("method"), scope.get("path_template", UNMATCHED)
    if found.problem.status == INTERNAL.status:
        _log.error("unhandled exception", method=method, route=route, exc_info=error)
    else:
        _log.warning(
            "request failed",
            method=method,
            route=route,
            problem=found.problem.slug,
            error=type(error).__name__,
            sqlstate=sqlstate_of(error),
            # These say what to do, and nothing that is secret.
            reason=str(error) if isinstance(error, KeyFileError | SealError) else None,
        )


def problem_response(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Litestar's exception handler."""
    found = explain(error, request if "route_handler" in request.scope else None, request.scope)
    _record(error, found, request.scope)
    status, body, media_type = _written(found, request.scope)
    return Response(body, status_code=status, headers=found.headers, media_type=media_type)


async def send_problem(scope: Scope, send: Send, error: Exception) -> None:
    """The same answer from plain ASGI code, outside of Litestar."""
    found = explain(error, None, scope)
    _record(error, found, scope)
    status, body, media_type = _written(found, scope)
    headers = [
        (name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in (found.headers or {}).items()
    ]
    headers += [(b"content-type", media_type.encode()), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


exception_handlers: ExceptionHandlersMap = {HTTPException: problem_response, Exception: problem_response}
"""For the application. Litestar looks handlers up by class, nearest base first, so these two take everything."""


class ProblemTypeRead(BaseStruct):
    """A kind of error."""

    type: str
    title: str
    status: int
    description: str


def _read(problem: ProblemType) -> ProblemTypeRead:
    return ProblemTypeRead(
        type=problem.uri, title=problem.title, status=problem.status, description=problem.description
    )


class ProblemController(Controller):
    """What the `type` of an error resolves to."""

    path = "/problems"
    tags = ("Problems",)
    opt = {"public": True}

    @get("/", operation_id="ListProblemTypes", summary="List the kinds of errors", sync_to_thread=False)
    def list_types(self) -> list[ProblemTypeRead]:
        return [_read(problem) for problem in problem_types()]

    @get("/{slug:str}", operation_id="GetProblemType", summary="Explain a kind of error", sync_to_thread=False)
    def get_type(self, slug: FromPath[str]) -> ProblemTypeRead:
        problem = problem_type(slug)
        if problem is None:
            raise ResourceNotFoundException("There is no such kind of error.")
        return _read(problem)
