"""Bodies of SCIM as the OpenAPI document shows them.

What is sent is read by scim2-models, which takes names in any case and what Entra and Okta make of SCIM. These only
keep out what can be nothing at all, so they ask for nothing and pass over what they do not know.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from msgspec import Struct, field

from tenantry.kernel.schema import UNSET, BaseStruct, UnsetType

__all__ = (
    "DirectoryCopy",
    "ScimGroup",
    "ScimList",
    "ScimPatch",
    "ScimResource",
    "ScimSearch",
    "ScimUser",
)


class ScimUser(Struct, rename="camel"):
    """A user (RFC 7643, section 4.1)."""

    user_name: str | UnsetType = UNSET
    """The address of the account. To be sent."""
    schemas: list[str] | UnsetType = UNSET
    external_id: str | UnsetType | None = UNSET
    """The directory's own id."""
    name: dict[str, Any] | UnsetType | None = UNSET
    """`givenName` and `familyName`."""
    display_name: str | UnsetType | None = UNSET
    active: bool | str | UnsetType = UNSET
    """Entra sends a text, `"False"`."""
    roles: list[dict[str, Any]] | UnsetType | None = UNSET
    """`[{"value": "<a role's slug>"}]`; left out, a new user is a member, and one that is there stays as they are."""


class ScimGroup(Struct, rename="camel"):
    """A group (RFC 7643, section 4.2)."""

    display_name: str | UnsetType = UNSET
    """The team's name. To be sent."""
    schemas: list[str] | UnsetType = UNSET
    external_id: str | UnsetType | None = UNSET
    members: list[dict[str, Any]] | UnsetType | None = UNSET
    """`[{"value": "<a user's id>"}]`."""


class ScimPatch(Struct):
    """Changes (RFC 7644, section 3.5.2)."""

    operations: list[dict[str, Any]] | UnsetType = field(name="Operations", default=UNSET)
    """`[{"op": "replace", "path": "active", "value": false}]`, at most 100. To be sent."""
    schemas: list[str] | UnsetType = UNSET


class ScimSearch(Struct, rename="camel"):
    """A search in a body (RFC 7644, section 3.4.3)."""

    schemas: list[str] | UnsetType = UNSET
    filter: str | UnsetType | None = UNSET
    sort_by: str | UnsetType | None = UNSET
    sort_order: str | UnsetType | None = UNSET
    start_index: int | UnsetType | None = UNSET
    count: int | UnsetType | None = UNSET
    attributes: list[str] | UnsetType | None = UNSET
    excluded_attributes: list[str] | UnsetType | None = UNSET


class ScimResource(Struct, rename="camel"):
    """A resource, with the attributes that were asked for."""

    schemas: list[str]
    id: str | UnsetType = UNSET
    external_id: str | UnsetType = UNSET
    meta: dict[str, Any] | UnsetType = UNSET
    """`resourceType`, `created`, `lastModified`, `location`, and `version`: the entity tag for `If-Match`."""


class ScimList(Struct, rename="camel"):
    """One page of a list (RFC 7644, section 3.4.2)."""

    schemas: list[str]
    total_results: int
    start_index: int | UnsetType = UNSET
    items_per_page: int | UnsetType = UNSET
    resources: list[dict[str, Any]] | UnsetType = field(name="Resources", default=UNSET)


class DirectoryCopy(BaseStruct):
    """In the copy of a person's data: what a directory calls them."""

    id: UUID
    external_id: str | None
    given_name: str | None
    family_name: str | None
    removed_at: datetime | None
    created_at: datetime
