"""Finding people and groups: SCIM's filters, orders and pages, as SQL of one organization."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scim2_models import ScimFilter
from sqlalchemy import select

from tenantry.domain.identity.users.models import User as Account
from tenantry.domain.scim.filters import condition_of
from tenantry.domain.scim.resources import PROVIDER, User
from tenantry.domain.scim.users import USER_ATTRIBUTES
from tests.domain.scim.support import Directory, connect, error_of
from tests.world import World


@pytest.fixture(scope="module")
async def directory(world: World) -> Directory:
    """Ann, Bob and Cleo, and who made the organization; Ann and Bob are in a group."""
    directory = await connect(await world.create_tenant("acme"))
    ann = await directory.user("ann", externalId="X1", name={"givenName": "Ann", "familyName": "Lee"})
    bob = await directory.user("bob", displayName="50%_Bob", roles=[{"value": "viewer"}])
    await directory.user("cleo", externalId="x1", displayName="Cleo", active=False)
    await directory.group("Red", ann["id"], bob["id"])
    await directory.group("Green", externalId="g-2")
    return directory


ANN, BOB, CLEO = "ann@people.example", "bob@people.example", "cleo@people.example"

FOUND = {
    f'userName eq "{ANN}"': {ANN},
    f'USERNAME EQ "{ANN.upper()}"': {ANN},
    f'urn:ietf:params:scim:schemas:core:2.0:User:userName eq "{ANN}"': {ANN},
    'userName co "PEOPLE" and active eq true': {ANN, BOB},
    'active eq "False"': {CLEO},
    'active ne true and userName sw "c"': {CLEO},
    'userName ew "people.example" and not (active eq true)': {CLEO},
    'externalId eq "X1"': {ANN},
    'externalId eq "x1"': {CLEO},
    'externalId eq "X1" or externalId eq "x1"': {ANN, CLEO},
    "externalId pr": {ANN, CLEO},
    'not (externalId pr) and userName co "people"': {BOB},
    'externalId eq null and userName co "people"': {BOB},
    'externalId ne "X1" and userName co "people"': {BOB, CLEO},
    'name.givenName eq "ann"': {ANN},
    "name pr": {ANN},
    'name.familyName gt "a"': {ANN},
    'displayName eq "ann lee"': {ANN},
    'displayName co "%_"': {BOB},
    'displayName sw "50%"': {BOB},
    'displayName co "5__"': set(),
    f'emails eq "{ANN}"': {ANN},
    f'emails.value eq "{ANN}"': {ANN},
    f'emails[type eq "work" and value eq "{ANN}"]': {ANN},
    f'emails[type eq "home" and value eq "{ANN}"]': set(),
    'emails[primary eq true and value co "ann"]': {ANN},
    'roles eq "viewer"': {BOB},
    'roles.value eq "VIEWER"': {BOB},
    'roles[value eq "viewer"]': {BOB},
    'groups.display eq "red"': {ANN, BOB},
    'groups pr and userName ne "x"': {ANN, BOB},
    'meta.created gt "2020-01-01T00:00:00Z" and userName sw "a"': {ANN},
    'meta.lastModified lt "2020-01-01T00:00:00+00:00"': set(),
    'meta.resourceType eq "User" and userName sw "b"': {BOB},
    'id eq "nothing"': set(),
}


@pytest.mark.parametrize("text", FOUND)
async def test_a_filter_finds_who_it_says(directory: Directory, text: str) -> None:
    assert set(await directory.find(text)) == FOUND[text]


async def test_groups_are_found_by_name_and_by_who_is_in_them(directory: Directory) -> None:
    [ann] = (await directory.read("/Users", filter=f'userName eq "{ANN}"'))["Resources"]
    assert await directory.find('displayName eq "RED"', "Groups") == ["Red"]
    assert await directory.find(f'members eq "{ann["id"]}"', "Groups") == ["Red"]
    assert await directory.find(f'members[value eq "{ann["id"]}"]', "Groups") == ["Red"]
    assert await directory.find("members pr", "Groups") == ["Red"]
    assert await directory.find('externalId eq "g-2"', "Groups") == ["Green"]
    assert await directory.find('id eq "' + ann["id"] + '"', "Groups") == []


async def test_ids_are_compared_with_their_case(directory: Directory) -> None:
    [ann] = (await directory.read("/Users", filter=f'userName eq "{ANN}"'))["Resources"]
    assert await directory.find(f'id eq "{ann["id"]}"') == [ANN]
    assert await directory.find(f'id eq "{ann["id"].upper()}"') == []


@pytest.mark.parametrize(
    "text",
    [
        "userName",
        "userName eq",
        'userName eq "a',
        'userName is "a"',
        '(userName eq "a"',
        'nonsense eq "a"',
        'emails.nonsense eq "a"',
        'userName[value eq "a"]',
        "userName eq 5",
        "active gt true",
        'active eq "perhaps"',
        'meta.created gt "yesterday"',
        'meta.created gt "9999-12-31T23:59:59-14:00"',
        'meta.location eq "x"',
        'schemas eq "x"',
        "not (" * 150 + 'userName eq "a"' + ")" * 150 + " and",
        f'userName eq "{"a" * 1000}"',
        "(" * 600,
    ],
)
async def test_a_filter_that_is_none_is_refused(directory: Directory, text: str) -> None:
    assert error_of(await directory.ask("GET", "/Users", params={"filter": text})) == (400, "invalidFilter")


@pytest.mark.parametrize("text", ["(" * 300 + "userName pr" + ")" * 300, "not (" * 150 + "userName pr" + ")" * 150])
async def test_a_filter_as_deep_as_it_may_be_is_answered(directory: Directory, text: str) -> None:
    assert (await directory.ask("GET", "/Users", params={"filter": text})).status_code in {200, 400}


async def test_pages_hold_everybody_once(directory: Directory) -> None:
    first = await directory.read("/Users", count=2)
    assert (first["totalResults"], first["startIndex"], first["itemsPerPage"]) == (4, 1, 2)
    second = await directory.read("/Users", startIndex=3, count=2)
    assert second["startIndex"] == 3
    names = [each["userName"] for page in (first, second) for each in page["Resources"]]
    assert names == [directory.tenant.owner_email, ANN, BOB, CLEO]
    none = await directory.read("/Users", count=0)
    assert (none["totalResults"], none.get("Resources", [])) == (4, [])
    # RFC 7644 §3.4.2.4: what is too small counts as the smallest.
    assert len((await directory.read("/Users", startIndex=-5, count=3))["Resources"]) == 3
    assert (await directory.read("/Users", startIndex=10**9))["totalResults"] == 4


async def test_orders_put_who_has_nothing_to_sort_by_last(directory: Directory) -> None:
    async def sorted_by(name: str, order: str = "ascending") -> list[str]:
        found = await directory.read("/Users", sortBy=name, sortOrder=order, filter='userName co "people"')
        return [each["userName"] for each in found["Resources"]]

    assert await sorted_by("userName", "descending") == [CLEO, BOB, ANN]
    assert await sorted_by("displayName") == [BOB, ANN, CLEO]
    assert (await sorted_by("externalId"))[-1] == BOB
    assert (await sorted_by("externalId", "descending"))[0] == BOB
    assert await sorted_by("emails.value") == [ANN, BOB, CLEO]
    assert await sorted_by("meta.created") == [ANN, BOB, CLEO]
    for wrong in ("nonsense", "name", "roles", "groups.value", 'emails[type eq "work"]'):
        answer = await directory.ask("GET", "/Users", params={"sortBy": wrong})
        assert error_of(answer) == (400, "invalidPath"), wrong


async def test_attributes_are_shown_as_asked_for(directory: Directory) -> None:
    query = {"filter": f'userName eq "{ANN}"'}
    [only] = (await directory.read("/Users", attributes="displayName,name.givenName", **query))["Resources"]
    assert only.keys() == {"schemas", "id", "displayName", "name"}
    assert only["name"] == {"givenName": "Ann"}
    [without] = (await directory.read("/Users", excludedAttributes="emails,id", **query))["Resources"]
    # The id is always there (RFC 7643 §3.1).
    assert "emails" not in without
    assert {"id", "userName"} <= without.keys()
    group = await directory.read("/Groups", filter='displayName eq "Red"', excludedAttributes="members")
    assert "members" not in group["Resources"][0]


async def test_a_search_in_everything_shows_users_and_then_groups(directory: Directory) -> None:
    async def search(path: str = "/.search", **body: Any) -> dict[str, Any]:
        answer = await directory.ask("POST", path, body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def names(found: dict[str, Any]) -> list[str]:
        return [each.get("userName") or each["displayName"] for each in found.get("Resources", [])]

    everything = await search()
    assert everything["totalResults"] == 6
    assert names(everything)[-2:] == ["Red", "Green"]
    middle = await search(startIndex=4, count=2)
    assert (middle["totalResults"], names(middle)) == (6, [CLEO, "Red"])
    # An attribute that only one kind has is nothing to the other (RFC 7644 §3.4.2.1).
    assert names(await search(filter='displayName eq "red" or userName eq "' + BOB + '"')) == [BOB, "Red"]
    assert names(await search(filter="members pr")) == ["Red"]
    assert names(await search("/Users/.search", filter='userName sw "ann"')) == [ANN]
    assert names(await search("/Groups/.search", sortBy="displayName")) == ["Green", "Red"]
    assert error_of(await directory.ask("POST", "/.search", {"sortBy": "displayName"})) == (501, None)


_ATTRIBUTES = st.sampled_from(
    ["userName", "externalId", "displayName", "name.givenName", "active", "id", "emails", "roles.value", "groups.value"]
)
_VALUES = st.one_of(
    st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=20),
    st.booleans(),
    st.none(),
    st.integers(-5, 5),
)
_COMPARISONS = st.builds(
    lambda name, operator, value: f"{name} {operator} {ScimFilter.quote(value)}",
    _ATTRIBUTES,
    st.sampled_from(["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"]),
    _VALUES,
) | st.builds(lambda name: f"{name} pr", _ATTRIBUTES)
_FILTERS = st.recursive(
    _COMPARISONS,
    lambda inner: (
        st.builds(lambda left, word, right: f"({left}) {word} ({right})", inner, st.sampled_from(["and", "or"]), inner)
        | inner.map(lambda each: f"not ({each})")
    ),
    max_leaves=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=_FILTERS)
async def test_any_filter_finds_what_the_library_finds_or_is_refused(directory: Directory, text: str) -> None:
    """scim2-models' own evaluation, over all users, is the reference."""
    await directory.rest()
    answer = await directory.ask("GET", "/Users", params={"filter": text})
    if answer.status_code == 400:
        assert error_of(answer) == (400, "invalidFilter")
        return
    assert answer.status_code == 200, answer.text
    found = {each["userName"] for each in answer.json().get("Resources", [])}
    everybody = (await directory.read("/Users"))["Resources"]
    with PROVIDER:
        wanted = ScimFilter[User](text)
        assert found == {each["userName"] for each in everybody if wanted.match(User.model_validate(each))}


def test_no_value_of_a_filter_is_part_of_the_statement() -> None:
    wanted = ScimFilter[User]('displayName co "x\' OR 1=1 --"')
    assert "OR 1=1" not in str(select(Account).where(condition_of(wanted, USER_ATTRIBUTES)))
