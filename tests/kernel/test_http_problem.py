"""Every error of an application is a problem (RFC 9457) that tells what it may, and no more."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import httpx
import pytest
import structlog
from litestar import Litestar, get, post
from litestar.di import NamedDependency, Provide
from litestar.exceptions import (
    ClientException as LitestarClientException,
)
from litestar.exceptions import (
    HTTPException,
    NotAuthorizedException,
    TooManyRequestsException,
)
from litestar.exceptions import (
    PermissionDeniedException as LitestarPermissionDenied,
)
from litestar.params import FromPath, FromQuery, HeaderParameter, QueryParameter
from litestar.testing import TestClient
from sqlalchemy.exc import ProgrammingError

from tenantry.kernel.errors import ApplicationException, ConflictException, NotAuthenticatedException, problem_types
from tenantry.kernel.http import PROBLEM_JSON, Edge, ErrorForm, answer_errors_in, edge
from tenantry.kernel.http import problem as problems
from tenantry.kernel.http.plugin import HttpPlugin
from tenantry.kernel.security import BrokenSealError, VaultError

TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
"""The example of W3C Trace Context §3.2.1."""

RAISED: dict[str, Exception] = {
    "conflict": ConflictException("The slug is taken.", slug="acme"),
    "unauthenticated": NotAuthenticatedException,  # type: ignore[dict-item]
    "litestar-401": NotAuthorizedException(),
    "litestar-403": LitestarPermissionDenied(),
    "litestar-400": LitestarClientException("No."),
    "litestar-429": TooManyRequestsException(headers={"Retry-After": "7"}),
    "gone": HTTPException(status_code=410),
    "application": ApplicationException("The password of the database is hunter2"),
    "bug": RuntimeError("hunter2"),
    "litestar-500": HTTPException(detail="hunter2"),
    "group": ExceptionGroup("cleanup", [ExceptionGroup("inner", [ConflictException("The slug is taken.")])]),
    "groups": ExceptionGroup("cleanup", [ConflictException(), RuntimeError("hunter2")]),
    "sql": ProgrammingError("SELECT $1", {"password": "hunter2"}, Exception("syntax error")),
    "down": ConnectionRefusedError(),
    "vault": VaultError("there is no vault at /keys/vault.json"),
    "seal": BrokenSealError("the sealed value is damaged, or of another purpose or owner"),
}


@get("/raise/{name:str}")
async def raising(name: FromPath[str]) -> None:
    raise RAISED[name]


def make_filter(page: Annotated[int, QueryParameter(name="pageNumber", ge=1)] = 1) -> int:
    return page


@get("/search", dependencies={"filters": Provide(make_filter, sync_to_thread=False)})
async def search(
    filters: NamedDependency[int],
    page_size: Annotated[int, QueryParameter(name="pageSize", ge=1, le=200)] = 20,
    retries: Annotated[int, HeaderParameter(name="X-Retries")] = 0,
    dataset: FromQuery[int] = 0,
) -> int:
    return filters + page_size + retries + dataset


@get("/needs")
async def needs(search: FromQuery[str]) -> str:
    return search


@get("/unserializable")
async def unserializable() -> Any:
    return object()


async def failing_commit() -> AsyncIterator[int]:
    yield 1
    raise ConflictException("A deferred constraint is violated.")


async def other_cleanup() -> AsyncIterator[int]:
    yield 2


@post("/commit", dependencies={"first": Provide(failing_commit), "second": Provide(other_cleanup)})
async def commit(first: NamedDependency[int], second: NamedDependency[int]) -> int:
    return first + second


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient[Edge]]:
    handlers = [raising, search, needs, commit, unserializable]
    app = Litestar(handlers, plugins=[HttpPlugin(title="Test", version="1")], logging_config=None)
    with TestClient(edge(app)) as client:
        yield client


def problem(answer: httpx.Response, status: int, slug: str) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert answer.status_code == status, body
    assert answer.headers["content-type"] == PROBLEM_JSON
    assert {"type", "title", "status", "detail", "instance", "requestId", "traceId", "errors"} <= body.keys()
    assert body["type"] == f"/problems/{slug}" if slug != "about:blank" else body["type"] == slug
    assert body["status"] == status
    assert body["requestId"] == answer.headers["x-request-id"]
    assert "hunter2" not in answer.text
    return body


def test_a_problem_says_what_where_and_in_which_request(client: TestClient[Edge]) -> None:
    answer = client.get("/raise/conflict?token=hunter2", headers={"X-Request-ID": "abc-1", "traceparent": TRACEPARENT})
    assert problem(answer, 409, "conflict") == {
        "type": "/problems/conflict",
        "title": "Conflict",
        "status": 409,
        "detail": "The slug is taken.",
        "instance": "/raise/conflict",
        "requestId": "abc-1",
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "errors": [],
        "slug": "acme",
    }


@pytest.mark.parametrize(
    ("name", "status", "slug"),
    [
        ("unauthenticated", 401, "not-authenticated"),
        ("litestar-401", 401, "not-authenticated"),
        ("litestar-403", 403, "permission-denied"),
        ("litestar-400", 400, "bad-request"),
        ("litestar-429", 429, "too-many-requests"),
        ("gone", 410, "about:blank"),
        ("group", 409, "conflict"),
        ("groups", 500, "internal"),
        ("application", 500, "internal"),
        ("bug", 500, "internal"),
        ("litestar-500", 500, "internal"),
        ("sql", 500, "internal"),
        ("down", 503, "unavailable"),
    ],
)
def test_whatever_is_raised_becomes_a_problem(client: TestClient[Edge], name: str, status: int, slug: str) -> None:
    answer = client.get(f"/raise/{name}")
    problem(answer, status, slug)
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    if status == 401:
        assert answer.headers["www-authenticate"] == 'Bearer realm="tenantry"'


def test_litestars_own_401_says_that_the_token_is_invalid_where_one_was_sent(client: TestClient[Edge]) -> None:
    answer = client.get("/raise/litestar-401", headers={"Authorization": "Bearer x"})
    assert answer.headers["www-authenticate"] == 'Bearer realm="tenantry", error="invalid_token"'


def test_an_internal_error_tells_its_request_id_and_is_logged_with_the_cause(client: TestClient[Edge]) -> None:
    with structlog.testing.capture_logs() as logs:
        body = problem(client.get("/raise/bug"), 500, "internal")
    assert body["requestId"] in body["detail"]
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert entry["exc_info"] is RAISED["bug"]
    assert entry["route"] == "/raise/{name}"


def test_what_is_logged_holds_no_values_of_statements(client: TestClient[Edge]) -> None:
    with structlog.testing.capture_logs() as logs:
        problem(client.get("/raise/sql"), 500, "internal")
    [entry] = [entry for entry in logs if entry["log_level"] == "error"]
    assert "hunter2" not in str(entry["exc_info"])
    assert "SELECT $1" in str(entry["exc_info"])


def test_an_outage_is_logged_without_a_traceback(client: TestClient[Edge]) -> None:
    with structlog.testing.capture_logs() as logs:
        problem(client.get("/raise/down"), 503, "unavailable")
    [entry] = [entry for entry in logs if entry["log_level"] == "warning"]
    assert entry["error"] == "ConnectionRefusedError"
    assert "exc_info" not in entry


def test_a_commit_that_fails_after_the_handler_is_an_error_answer(client: TestClient[Edge]) -> None:
    body = problem(client.post("/commit"), 409, "conflict")
    assert body["detail"] == "A deferred constraint is violated."


def test_an_answer_that_cannot_be_written_is_our_fault(client: TestClient[Edge]) -> None:
    problem(client.get("/unserializable"), 500, "internal")


def test_unknown_addresses_and_methods(client: TestClient[Edge]) -> None:
    assert problem(client.get("/nowhere"), 404, "not-found")["instance"] == "/nowhere"
    answer = client.delete("/search")
    problem(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


def test_a_path_of_any_characters_is_quoted_in_the_answer(client: TestClient[Edge]) -> None:
    body = problem(client.get("/no where/%C3%A4/%00/%ED%A0%80"), 404, "not-found")
    assert body["instance"].startswith("/no%20where/%C3%A4/%00/")


def test_parameters_are_named_as_they_are_spelled_in_the_request(client: TestClient[Edge]) -> None:
    answer = client.get("/search?pageSize=500&dataset=x", headers={"X-Retries": "many"})
    assert problem(answer, 422, "validation")["errors"] == [
        {"field": "pageSize", "source": "query", "message": "Expected `int` <= 200"},
        {"field": "X-Retries", "source": "header", "message": "Expected `int`, got `str`"},
        {"field": "dataset", "source": "query", "message": "Expected `int`, got `str`"},
    ]
    in_dependency = problem(client.get("/search?pageNumber=0"), 422, "validation")
    assert [error["field"] for error in in_dependency["errors"]] == ["pageNumber"]
    assert "pageNumber=0" not in in_dependency["detail"]


def test_a_missing_parameter_is_named(client: TestClient[Edge]) -> None:
    errors = problem(client.get("/needs"), 422, "validation")["errors"]
    assert errors == [{"field": "search", "source": "query", "message": "Required, but missing"}]


def test_the_address_of_each_problem_type_explains_it(client: TestClient[Edge]) -> None:
    listed = client.get("/problems").json()
    assert len(listed) == len(problem_types())
    for entry in listed:
        assert client.get(entry["type"]).json() == entry
        assert set(entry) == {"type", "title", "status", "description"}
    problem(client.get("/problems/unknown"), 404, "not-found")


def test_what_is_wrong_with_the_vault_is_for_the_log_alone(client: TestClient[Edge]) -> None:
    with structlog.testing.capture_logs() as logs:
        body = problem(client.get("/raise/vault"), 503, "unavailable")
    assert "vault" not in body["detail"]
    (line,) = [line for line in logs if line["event"] == "request failed"]
    assert (line["error"], line["reason"]) == ("VaultError", "there is no vault at /keys/vault.json")
    # Never put right by trying again.
    assert "seal" not in problem(client.get("/raise/seal"), 500, "internal")["detail"]


def test_errors_below_a_prefix_have_the_form_of_another_protocol(
    client: TestClient[Edge], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever they come up: in a route, for want of one, and before all of them."""
    monkeypatch.setattr(problems, "_forms", {})
    form = ErrorForm(
        name="Plain",
        prefix="/raise/",
        media_type="application/plain+json",
        statuses={422: 400},
        encode=lambda error, detail: {"told": detail, "was": error.problem.slug},
        schema={"type": "object"},
    )
    answer_errors_in(form)
    answer_errors_in(form)
    expected = {
        "/raise/conflict": (409, "conflict"),
        "/raise/none/of/these": (404, "not-found"),
        "/raise/conflict?a=%00": (400, "validation"),
        "/raise/bug": (500, "internal"),
    }
    for path, (status, slug) in expected.items():
        answer = client.get(path)
        assert (answer.status_code, answer.json()["was"]) == (status, slug)
        assert answer.headers["Content-Type"] == "application/plain+json"
        assert "hunter2" not in answer.text
    assert answer.headers["X-Request-ID"] in answer.json()["told"]
    assert client.get("/elsewhere").headers["Content-Type"] == PROBLEM_JSON
    with pytest.raises(ValueError, match="/raise/"):
        answer_errors_in(ErrorForm("Other", "/raise/", "application/json", {}, lambda *_: {}, {}))
