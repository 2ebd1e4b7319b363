"""Every resource, whoever added it: its tag on reading, and whatever changes or deletes it told to look at the tag."""

from __future__ import annotations

from typing import Any

import pytest

from tests.isolation.routes import ENDPOINTS, Endpoint, body_of, identifiers_in
from tests.isolation.test_routes import CONTROL_PLANES, Pair, _plant, _snapshot
from tests.isolation.test_routes import pair as pair

GUARDED = [each for each in ENDPOINTS if each.path.startswith("/api/") and not each.is_public]
TAGGED = [each for each in GUARDED if each.method == "GET" and each.handler.opt["declared"].has_tag]
CHANGES = [
    each
    for each in GUARDED
    if each.method in {"PUT", "PATCH", "DELETE"} and each.handler.opt["declared"].looks_at_conditions
]
OF_RESOURCES = [each for each in CHANGES if each.handler.opt["declared"].resource is not None]

STALE = '"0123456789abcdef0123456789abcdef"'


async def _ids(pair: Pair, endpoint: Endpoint) -> dict[str, Any]:
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    return await _plant(pair.acme, names, linked=endpoint.parameters)


def _body(endpoint: Endpoint, ids: dict[str, Any]) -> dict[str, Any]:
    body = body_of(endpoint.body, ids)
    return {} if body is None else {"json": body}


@pytest.mark.parametrize("endpoint", TAGGED, ids=str)
async def test_a_resource_has_a_tag_and_is_not_sent_to_who_has_it(pair: Pair, endpoint: Endpoint) -> None:
    url = endpoint.url(await _ids(pair, endpoint))
    first = await pair.acme.get(url)
    assert first.status_code == 200, first.text
    tag = first.headers["ETag"]
    assert tag.startswith('"')
    assert (await pair.acme.get(url)).headers["ETag"] == tag
    for having in (tag, f"W/{tag}", "*", f"{STALE}, {tag}"):
        answer = await pair.acme.get(url, headers={"If-None-Match": having})
        assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    answer = await pair.acme.get(url, headers={"If-None-Match": STALE})
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (200, first.content, tag)
    answer = await pair.acme.get(url, headers={"If-None-Match": "no quotation marks"})
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/condition-malformed")


@pytest.mark.parametrize("endpoint", CHANGES, ids=str)
async def test_a_stale_tag_changes_nothing(pair: Pair, endpoint: Endpoint) -> None:
    """Also where the resource is only read in lists, and has no tag that could match."""
    ids = await _ids(pair, endpoint)
    before = await _snapshot(pair.acme)
    for stale in (STALE, f"W/{STALE}", f'{STALE}, "another"'):
        answer = await pair.acme.request(
            endpoint.method, endpoint.url(ids), headers={"If-Match": stale}, **_body(endpoint, ids)
        )
        assert (answer.status_code, answer.json()["type"]) == (412, "/problems/precondition-failed")
    answer = await pair.acme.request(
        endpoint.method, endpoint.url(ids), headers={"If-Match": "no quotation marks"}, **_body(endpoint, ids)
    )
    assert (answer.status_code, answer.json()["type"]) == (400, "/problems/condition-malformed")
    assert await _snapshot(pair.acme) == before
    answer = await pair.acme.request(
        endpoint.method, endpoint.url(ids), headers={"If-Match": "*"}, **_body(endpoint, ids)
    )
    assert answer.status_code != 412, answer.text


@pytest.mark.parametrize("endpoint", OF_RESOURCES, ids=str)
async def test_the_tag_that_holds_lets_a_change_pass_once(pair: Pair, endpoint: Endpoint) -> None:
    ids = await _ids(pair, endpoint)
    url, arguments = endpoint.url(ids), _body(endpoint, ids)
    tag = (await pair.acme.get(url)).headers["ETag"]
    weak = await pair.acme.request(endpoint.method, url, headers={"If-Match": f"W/{tag}"}, **arguments)
    assert weak.status_code == 412, "weak tags are nothing to change anything on"
    none = await pair.acme.request(endpoint.method, url, headers={"If-None-Match": "*"}, **arguments)
    assert none.status_code == 412
    answer = await pair.acme.request(endpoint.method, url, headers={"If-Match": f"{STALE}, {tag}"}, **arguments)
    assert answer.is_success, answer.text
    again = await pair.acme.get(url)
    if endpoint.method == "DELETE":
        # An API key stays as it was, but for the time at which it ended.
        assert again.status_code == 404 or again.headers["ETag"] != tag
        return
    assert answer.headers["ETag"] == again.headers["ETag"], "the next change needs no read before it"


@pytest.mark.parametrize("endpoint", [each for each in OF_RESOURCES if each.parameters], ids=str)
async def test_of_what_is_not_there_no_tag_is_asked(pair: Pair, endpoint: Endpoint) -> None:
    """Of another organization's neither: it is not there."""
    names = (*endpoint.parameters, *identifiers_in(endpoint.body))
    foreign = await _plant(pair.globex, names, linked=endpoint.parameters)
    before = await _snapshot(pair.globex)
    tag = (await pair.globex.get(endpoint.url(foreign))).headers["ETag"]
    for value in (STALE, tag, "*"):
        answer = await pair.acme.request(
            endpoint.method, endpoint.url(foreign), headers={"If-Match": value}, **_body(endpoint, foreign)
        )
        assert answer.status_code == 404, answer.text
    assert await _snapshot(pair.globex) == before


def test_ids_of_the_control_plane_change_nothing() -> None:
    """They name no row of the tenant's that could be locked: a route that changes one needs a lock of its own."""
    assert not [each for each in OF_RESOURCES if each.parameters and each.parameters[-1] in CONTROL_PLANES]
