"""What this service speaks of over SCIM: its users and groups (RFC 7643 §4), and what it can do (§5).

A subset of the core schema, on purpose: what is declared here is kept, and shown as it was sent. Directories send much
more (telephones, addresses, managers); that is passed over, since nothing here would use it.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import Field
from scim2_models import (
    URN,
    AuthenticationScheme,
    Bulk,
    CaseExact,
    ChangePassword,
    ComplexAttribute,
    ETag,
    Filter,
    Mutability,
    Patch,
    Reference,
    Required,
    Resource,
    ResourceType,
    ScimPolicy,
    ScimProvider,
    ServiceProviderConfig,
    Sort,
    Uniqueness,
)

__all__ = ("MOST_RESULTS", "PROVIDER", "Group", "Member", "MemberOf", "Name", "RoleHeld", "User")

MOST_RESULTS = 200
"""On one page of a list."""


class Name(ComplexAttribute):
    """The parts of a person's name."""

    family_name: str | None = None
    """The family name."""
    given_name: str | None = None
    """The given name."""


class EmailAddress(ComplexAttribute):
    """The account's address, once more."""

    value: Annotated[str | None, Mutability.read_only] = None
    """The address."""
    type: Annotated[str | None, Mutability.read_only] = Field(None, examples=["work"])
    """Always `work`."""
    primary: Annotated[bool | None, Mutability.read_only] = None
    """Always true."""


class MemberOf(ComplexAttribute):
    """A group that the user is in."""

    value: Annotated[str | None, Mutability.read_only, CaseExact.true] = None
    """The group's id."""
    ref: Annotated[Reference[Group] | None, Mutability.read_only] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    """Its address."""
    display: Annotated[str | None, Mutability.read_only] = None
    """Its name."""


class RoleHeld(ComplexAttribute):
    """A role of the organization that the user holds."""

    value: str | None = Field(None, examples=["admin", "member", "viewer"])
    """The role's slug: a built-in role's, or that of one of the organization's own."""


class User(Resource[Any]):
    """A person with an account in the organization."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:User")

    user_name: Annotated[str | None, Uniqueness.server, Required.true] = None
    """The address by which the person logs in and to which mail to them is sent."""
    name: Name | None = None
    """The parts of the person's name."""
    Name: ClassVar[type[ComplexAttribute]] = Name
    display_name: str | None = None
    """The name that others see; where it is not sent, it is put together from the parts."""
    active: Annotated[bool | None, Required.true] = None
    """Whether the person is let in. False ends their sessions with the next request."""
    emails: Annotated[list[EmailAddress] | None, Mutability.read_only] = None
    """The userName, as the one address of the account."""
    Emails: ClassVar[type[ComplexAttribute]] = EmailAddress
    groups: Annotated[list[MemberOf] | None, Mutability.read_only] = None
    """The groups that the user is in."""
    Groups: ClassVar[type[ComplexAttribute]] = MemberOf
    roles: list[RoleHeld] | None = None
    """The organization's roles that the user holds; `member` where a new user comes with none."""
    Roles: ClassVar[type[ComplexAttribute]] = RoleHeld


class Member(ComplexAttribute):
    """A user in a group."""

    value: Annotated[str | None, Mutability.immutable, CaseExact.true] = None
    """The user's id."""
    ref: Annotated[Reference[User] | None, Mutability.immutable] = Field(
        None, serialization_alias="$ref", validation_alias="$ref"
    )
    """Their address."""
    type: Annotated[str | None, Mutability.immutable] = Field(None, examples=["User"])
    """Always `User`: groups do not hold groups."""


class Group(Resource[Any]):
    """A team of the organization."""

    __schema__ = URN("urn:ietf:params:scim:schemas:core:2.0:Group")

    display_name: Annotated[str | None, Required.true] = None
    """The team's name."""
    members: list[Member] | None = None
    """The users in the team."""
    Members: ClassVar[type[ComplexAttribute]] = Member


# A user names groups, which were not there yet. Pydantic would complete it with the first user that is made, and until
# then a filter would know nothing of its attributes: in each process, until somebody is shown.
MemberOf.model_rebuild()
User.model_rebuild()


def _resource_type(model: type[Resource[Any]], description: str) -> ResourceType:
    found = ResourceType.from_resource(model)
    found.description = description
    return found


PROVIDER = ScimProvider(
    models=[User, Group],
    resource_types=[_resource_type(User, "People of the organization."), _resource_type(Group, "Teams.")],
    config=ServiceProviderConfig(
        patch=Patch(supported=True),
        bulk=Bulk(supported=False, max_operations=0, max_payload_size=0),
        filter=Filter(supported=True, max_results=MOST_RESULTS),
        change_password=ChangePassword(supported=False),
        sort=Sort(supported=True),
        etag=ETag(supported=True),
        authentication_schemes=[
            AuthenticationScheme(
                type=AuthenticationScheme.Type.oauthbearertoken,
                name="API key",
                description="The API key of a service account, as a bearer token (RFC 6750).",
                spec_uri=Reference("https://www.rfc-editor.org/rfc/rfc6750"),
                primary=True,
            )
        ],
    ),
    # What Microsoft Entra and Okta send, as they send it.
    policy=ScimPolicy(
        unknown=ScimPolicy.Unknown.ignore,
        remove_value_as_filter=ScimPolicy.RemoveValue.apply,
        unmatched_path_filter=ScimPolicy.UnmatchedPathFilter.create,
    ),
)
