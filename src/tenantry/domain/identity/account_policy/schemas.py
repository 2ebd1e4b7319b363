"""The policy of accounts on the wire."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta

from tenantry.domain.identity.account_policy.models import MAX_DOMAINS
from tenantry.domain.identity.users.schemas import RoleBrief
from tenantry.events.definition import Payload
from tenantry.kernel.schema import UNSET, BaseStruct, UnsetType, Update

__all__ = ("AccountPolicyChanged", "AccountPolicyRead", "AccountPolicyUpdate", "SignUpMode")

SignUpMode = Literal["domains", "open", "off"]
Domain = Annotated[str, Meta(min_length=1, max_length=253)]
Domains = Annotated[list[Domain], Meta(max_length=MAX_DOMAINS)]


class SignUpRole(RoleBrief):
    id: UUID


class AccountPolicyRead(BaseStruct):
    sign_up: SignUpMode
    """Who may make an account without an invitation."""
    domains: list[str]
    """Of whose addresses, where that is `domains`."""
    role: SignUpRole | None
    """That newcomers are given; null while nobody has chosen one, which means `viewer`."""
    verified_only: bool
    """Whether people are kept out until their address is confirmed."""


class AccountPolicyUpdate(Update):
    sign_up: SignUpMode | UnsetType = UNSET
    domains: Domains | UnsetType = UNSET
    role_id: UUID | UnsetType = UNSET
    verified_only: bool | UnsetType = UNSET


class AccountPolicyChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[Literal["sign_up", "domains", "role_id", "verified_only"]]
