"""Problem types and the exceptions that carry them."""

from __future__ import annotations

import pytest
from litestar.exceptions import HTTPException

from tenantry.kernel import errors
from tenantry.kernel.errors import (
    ApplicationException,
    ClientException,
    ConflictException,
    FieldError,
    NotAuthenticatedException,
    PermissionDeniedException,
    ProblemType,
    ResourceNotFoundException,
    TooManyRequestsException,
    UnavailableException,
    ValidationFailedException,
    define_problem,
    problem_type,
    problem_types,
)


@pytest.mark.parametrize(
    ("kind", "status", "slug"),
    [
        (ApplicationException, 500, "internal"),
        (ClientException, 400, "bad-request"),
        (NotAuthenticatedException, 401, "not-authenticated"),
        (PermissionDeniedException, 403, "permission-denied"),
        (ResourceNotFoundException, 404, "not-found"),
        (ConflictException, 409, "conflict"),
        (ValidationFailedException, 422, "validation"),
        (TooManyRequestsException, 429, "too-many-requests"),
        (UnavailableException, 503, "unavailable"),
    ],
)
def test_each_exception_has_its_status_on_the_class_and_on_the_instance(
    kind: type[ApplicationException], status: int, slug: str
) -> None:
    assert issubclass(kind, HTTPException)
    assert kind.status_code == status
    raised = kind("Because.")
    assert (raised.status_code, raised.problem.slug, raised.detail) == (status, slug, "Because.")


def test_every_exception_that_is_exported_has_a_registered_problem_type() -> None:
    kinds = [
        value
        for name in errors.__all__
        if isinstance(value := getattr(errors, name), type) and issubclass(value, ApplicationException)
    ]
    assert len(kinds) > 10
    assert {kind.problem for kind in kinds} <= set(problem_types())


def test_an_exception_without_a_detail_explains_its_problem_type() -> None:
    assert ConflictException().detail == errors.CONFLICT.description


def test_a_missing_token_is_challenged_and_a_bad_one_is_called_invalid() -> None:
    assert NotAuthenticatedException().headers == {"WWW-Authenticate": 'Bearer realm="tenantry"'}
    headers = NotAuthenticatedException(invalid_token=True).headers
    assert headers == {"WWW-Authenticate": 'Bearer realm="tenantry", error="invalid_token"'}


@pytest.mark.parametrize(("seconds", "header"), [(1, "1"), (30, "30"), (-5, "0")])
def test_what_can_be_retried_says_when(seconds: int, header: str) -> None:
    for kind in (TooManyRequestsException, UnavailableException):
        assert (kind(retry_after=seconds).headers or {})["Retry-After"] == header


def test_a_problem_type_of_ones_own_replaces_that_of_the_exception() -> None:
    teapot = define_problem("test-teapot", 418, "Teapot", "No coffee here.")
    raised = ClientException(problem=teapot, headers={"X-Tea": "yes"}, strength=3)
    assert (raised.status_code, raised.members, raised.headers) == (418, {"strength": 3}, {"X-Tea": "yes"})
    assert problem_type("test-teapot") is teapot
    assert teapot.uri == "/problems/test-teapot"


def test_a_slug_means_one_problem_only() -> None:
    same = define_problem("test-twice", 409, "Twice", "Once more.")
    assert define_problem("test-twice", 409, "Twice", "Once more.") == same
    with pytest.raises(ValueError, match="already the slug"):
        define_problem("test-twice", 410, "Twice", "Once more.")
    assert problem_type("test-twice") == same


def test_a_problem_type_has_the_status_of_an_error() -> None:
    with pytest.raises(ValueError, match="not the status of an error"):
        define_problem("test-fine", 200, "Fine", "All is well.")
    assert problem_type("test-fine") is None


def test_members_cannot_take_the_names_of_the_standard_ones() -> None:
    with pytest.raises(TypeError, match="reserved members of a problem: type"):
        ApplicationException(type="about:blank")


def test_validation_counts_its_fields() -> None:
    one = ValidationFailedException.of("email", "Expected an e-mail address", source="query")
    assert one.errors == (FieldError(field="email", source="query", message="Expected an e-mail address"),)
    assert one.detail == "One field is not as expected."
    two = ValidationFailedException(errors=[*one.errors, FieldError(field="name", message="Required")])
    assert two.detail == "2 fields are not as expected."


def test_problem_types_are_listed_by_status() -> None:
    listed = problem_types()
    assert [(problem.status, problem.slug) for problem in listed] == sorted(
        (problem.status, problem.slug) for problem in listed
    )
    assert all(isinstance(problem, ProblemType) and problem.description for problem in listed)
