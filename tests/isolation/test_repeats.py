"""Every POST that creates, whoever added it: sent twice with one key it is done once, and answered twice the same."""

from __future__ import annotations

from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from tests.isolation.factors import prepare_factors
from tests.isolation.routes import ENDPOINTS, Endpoint, body_of, identifiers_in
from tests.isolation.test_routes import TIED, Pair, _plant, _snapshot
from tests.isolation.test_routes import pair as pair

POSTS = [each for each in ENDPOINTS if each.path.startswith("/api/") and each.method == "POST" and not each.is_public]
KEYED = [each for each in POSTS if each.handler.opt["declared"].takes_key]

LEFT_OUT = {
    "POST /api/scim/v2/Users": "SCIM's clients send no such header: they look for what they would make (RFC 7644 §3.3)",
    "POST /api/scim/v2/Groups": "likewise",
}
"""Routes that create and take no key, and why. To add one is a decision."""


def test_whatever_creates_takes_a_key() -> None:
    assert {str(each) for each in POSTS if each.handler.status_code == 201 and each not in KEYED} == LEFT_OUT.keys()


async def _prepare(pair: Pair, endpoint: Endpoint) -> tuple[str, dict[str, Any]]:
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    ids = await _plant(pair.acme, names, linked=names if str(endpoint) in TIED else endpoint.parameters)
    body = await prepare_factors(pair.acme, pair.acme, str(endpoint)) or body_of(endpoint.body, ids)
    return endpoint.url(ids), {} if body is None else {"json": body}


async def _rows(pair: Pair) -> dict[str, Any]:
    """Everything but how far the provisioner is with exports, which it goes on with by itself."""
    rows = await _snapshot(pair.acme)
    return {**rows, "own exports": sorted(str(row["id"]) for row in rows["own exports"])}


async def _kept(pair: Pair) -> dict[UUID, bytes]:
    """The answers that are kept, by the ids of their rows."""
    async with pair.world.database.transaction(pair.acme.context.read_scope) as transaction:
        rows = await transaction.connection.fetch("SELECT id, answer FROM idempotent_request WHERE $1", True)
    return {row["id"]: bytes(row["answer"]) for row in rows}


def _told(answer: httpx.Response) -> tuple[int, bytes, str | None, str | None, str | None]:
    headers = answer.headers
    return (
        answer.status_code,
        answer.content,
        headers.get("Content-Type"),
        headers.get("Location"),
        headers.get("Retry-After"),
    )


@pytest.mark.parametrize("endpoint", KEYED, ids=str)
async def test_sent_again_with_its_key_it_is_answered_as_before_and_nothing_happens(
    pair: Pair, endpoint: Endpoint
) -> None:
    url, arguments = await _prepare(pair, endpoint)
    headers = {"Idempotency-Key": f'"{uuid4()}"'}
    kept, before = await _kept(pair), await _rows(pair)
    first = await pair.acme.post(url, headers=headers, **arguments)
    assert first.is_success, first.text
    assert "Idempotent-Replayed" not in first.headers
    made = await _rows(pair)
    assert made != before
    again = await pair.acme.post(url, headers=headers, **arguments)
    assert _told(again) == _told(first)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert await _rows(pair) == made
    # What was answered is nowhere in the clear: it may be a secret that is shown once.
    [answer] = (content for id_, content in (await _kept(pair)).items() if id_ not in kept)
    assert not any(piece in answer for piece in (first.content[:16], b"application/json"))
    # With another body, or to another address, the key is refused; another tenant may have the same one.
    other = await pair.acme.post(url, headers=headers, params={"other": "1"}, **arguments)
    assert (other.status_code, other.json()["type"]) == (422, "/problems/idempotency-key-reused")
    assert await _rows(pair) == made
    theirs, arguments = await _prepare(Pair(pair.globex, pair.acme, pair.world), endpoint)
    elsewhere = await pair.globex.post(theirs, headers=headers, **arguments)
    assert elsewhere.is_success, elsewhere.text
    assert "Idempotent-Replayed" not in elsewhere.headers
