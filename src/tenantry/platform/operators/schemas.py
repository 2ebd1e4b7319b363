"""Operators on the wire."""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from tenantry.kernel.schema import BaseStruct, Email, Password

__all__ = ("OperatorLoginPayload", "OperatorMeRead", "OperatorTokenResponse")


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
