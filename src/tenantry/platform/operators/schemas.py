"""Operators on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

from tenantry.kernel.schema import UNSET, BaseStruct, Email, Password, ShortText, UnsetType, Update

__all__ = (
    "OperatorCreate",
    "OperatorLoginPayload",
    "OperatorMeRead",
    "OperatorRead",
    "OperatorTokenResponse",
    "OperatorUpdate",
)

OperatorRole = Literal["owner", "operator", "support", "auditor"]


class OperatorLoginPayload(BaseStruct):
    email: Email
    password: Password


class OperatorTokenResponse(BaseStruct):
    access_token: str
    expires_in: int
    """Seconds."""
    token_type: Literal["Bearer"] = "Bearer"  # noqa: S105 - a kind of token, not one


class OperatorMeRead(BaseStruct):
    id: UUID
    email: str
    role: str
    permissions: list[str]


class OperatorRead(BaseStruct):
    id: UUID
    email: str
    name: str | None
    role: str
    is_active: bool
    last_login_at: datetime | None
    created_at: datetime
    updated_at: datetime


class OperatorCreate(BaseStruct):
    email: Email
    password: Password
    role: OperatorRole
    name: ShortText | None = None


class OperatorUpdate(Update):
    name: ShortText | UnsetType | None = UNSET
    role: OperatorRole | UnsetType = UNSET
    is_active: bool | UnsetType = UNSET
    """An operator who is no longer active is refused with the next request, also with a token that is still good."""
