"""Generated requests against the whole OpenAPI document, over HTTP, with the tokens of both planes.

A short run in `make test`; `make fuzz` sets TENANTRY_FUZZ_EXAMPLES, the number of examples per operation.
"""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case, GenerationMode
from schemathesis.config import GenerationConfig, SchemathesisConfig
from schemathesis.core import NOT_SET
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation
from schemathesis.specs.openapi.checks import negative_data_rejection

from tests.databases import Template, clone_database, drop_database
from tests.faults.deployment import Deployment, open_deployment
from tests.fuzz.estate import Estate

LONG = os.environ.get("TENANTRY_FUZZ_EXAMPLES")
EXAMPLES = int(LONG or "2")

REFUSALS = (400, 401, 403, 404, 405, 406, 409, 412, 415, 422, 428, 429)
CHECKS = {
    "not_a_server_error": True,
    "status_code_conformance": True,
    "content_type_conformance": True,
    "response_headers_conformance": True,
    "response_schema_conformance": True,
    "negative_data_rejection": True,
    "missing_required_header": True,
    "unsupported_method": True,
    "ignored_auth": True,
    # Litestar answers OPTIONS with the methods of a path that were registered first, not with all of them. A 405 has
    # them all: tests/domain/test_bad_input.py.
    "allow_header_conformance": False,
    # What the document allows may still be refused by what is stored: a plan that does not exist, a password that is
    # too short for this deployment, an address to which no mail could be sent.
    "positive_data_acceptance": False,
    # These two follow a resource from one request to the next; here every request stands alone, and tests/domain says
    # what becomes of a deleted team.
    "use_after_free": False,
    "ensure_resource_availability": False,
    # Needs two principals' resources described to it; tests/isolation is that, for every route.
    "object_level_authorization": False,
}


@pytest.fixture(scope="module")
def deployment(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    addresses = asyncio.run(clone_database(template))
    try:
        # What archives a tenant waits for every process to have noticed: two of these intervals.
        # A stream of notifications is read to its end.
        with open_deployment(
            addresses, tmp_path_factory.mktemp("fuzz"), registry_poll_interval=0.1, stream_lifetime=0.1
        ) as opened:
            yield opened
    finally:
        asyncio.run(drop_database(addresses))


@pytest.fixture(scope="module")
def estate(deployment: Deployment) -> Estate:
    return Estate(deployment)


@pytest.fixture(scope="module")
def operations(deployment: Deployment) -> list[APIOperation[Any, Any, Any, Any]]:
    """Every operation of the document, as the running service shows it."""
    config = SchemathesisConfig.from_dict(
        {
            "checks": {
                **{name: {"enabled": on} for name, on in CHECKS.items()},
                # A condition that does not hold is told before anybody has read the body.
                "negative_data_rejection": {"expected-statuses": [*REFUSALS, "5xx"]},
            },
            # The estate gives the tokens; the check `ignored_auth` takes them away again.
            "generation": {"with-security-parameters": False},
        }
    )
    schema = schemathesis.openapi.from_url(f"{deployment.url}/schema/openapi.json", config=config)
    found = [result.ok() for result in schema.get_all_operations() if isinstance(result, Ok)]
    assert len(found) == sum(len(methods) for methods in schema.values())
    return found


@pytest.fixture(scope="module")
def session() -> Iterator[requests.Session]:
    """One connection for all requests."""
    with requests.Session() as opened:
        yield opened


# Litestar documents every body as required; these may be left out.
_MAY_LACK_BODY = frozenset({"AcceptAccessRequest", "DeactivateUser", "SuspendTenant"})


def _send(case: Case[Any], estate: Estate, session: requests.Session) -> None:
    excluded: list[Any] = (
        [negative_data_rejection]
        if case.operation.definition.raw["operationId"] in _MAY_LACK_BODY and case.body is NOT_SET
        else []
    )
    try:
        case.call_and_validate(headers=estate.prepare(case), session=session, excluded_checks=excluded, timeout=30)
    except BaseExceptionGroup as error:
        error.add_note(estate.log())
        raise


def _can_be_wrong(operation: APIOperation[Any, Any, Any, Any]) -> bool:
    """Whether anything is expected of a request but the path; of which any text is, where it takes a slug."""
    if operation.body or operation.query:
        return True
    return any(parameter.definition["schema"].keys() > {"type"} for parameter in operation.path_parameters)


def test_generated_requests_break_nothing(
    operations: list[APIOperation[Any, Any, Any, Any]],
    estate: Estate,
    session: requests.Session,
    subtests: pytest.Subtests,
) -> None:
    for operation in operations:
        for mode in GenerationMode:
            if mode is GenerationMode.NEGATIVE and not _can_be_wrong(operation):
                continue

            @settings(
                max_examples=EXAMPLES,
                deadline=None,
                derandomize=LONG is None,
                database=None,
                suppress_health_check=list(HealthCheck),
            )
            @given(case=operation.as_strategy(mode))
            def run(case: Case[Any]) -> None:
                _send(case, estate, session)

            with subtests.test(operation.label, mode=mode.value):
                run()


def test_every_boundary_of_the_document_holds(
    operations: list[APIOperation[Any, Any, Any, Any]],
    estate: Estate,
    session: requests.Session,
    subtests: pytest.Subtests,
) -> None:
    """The values at and just beyond each limit, one at a time; a sample of them in the short run."""
    for operation in operations:
        cases = operation.schema.iter_coverage_cases(
            operation,
            generation_modes=list(GenerationMode),
            generation_config=GenerationConfig(with_security_parameters=False),
        )
        with subtests.test(operation.label):
            for case in cases if LONG else itertools.islice(cases, 0, None, 12):
                _send(case, estate, session)
