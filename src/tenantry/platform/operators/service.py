"""Operators' accounts and log-in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, update

from tenantry.kernel.errors import ConflictException, NotAuthenticatedException, ValidationFailedException
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import AUDIENCE_PLATFORM, PasswordHasher, Tokens
from tenantry.kernel.service import Service
from tenantry.platform.operators.models import OPERATOR_ROLES, Operator

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("OperatorAuthenticator", "OperatorService")


class OperatorService(Service[Operator]):
    """Operators' accounts."""

    class Repo(SQLAlchemyAsyncRepository[Operator]):
        model_type = Operator

    repository_type = Repo
    match_fields = ["email"]

    async def add(self, *, email: str, hashed_password: str, role: str) -> Operator:
        """A new operator.

        Raises:
            ValidationFailedException: the address is none, or the role unknown.
            ConflictException: the address is an operator's already.
        """
        if role not in OPERATOR_ROLES:
            raise ValidationFailedException.of("role", f"Expected one of {', '.join(OPERATOR_ROLES)}.")
        email = normalize_email(email)
        if await self.exists(email=email):
            raise ConflictException(f"{email} is an operator already.")
        return await self.create({"email": email, "hashed_password": hashed_password, "role": role})


class OperatorAuthenticator:
    """Trades an operator's password for a token; no transaction is open while a password is hashed."""

    def __init__(
        self,
        *,
        database: Database,
        read_scope: Scope,
        write_scope: Scope,
        tokens: Tokens,
        hasher: PasswordHasher,
        settings: Settings,
    ) -> None:
        self._database = database
        self._read_scope = read_scope
        self._write_scope = write_scope
        self._tokens = tokens
        self._hasher = hasher
        self._settings = settings

    async def log_in(self, email: str, password: str) -> tuple[str, int]:
        """A token and its life in seconds.

        Raises:
            NotAuthenticatedException: unknown address, wrong password or deactivated, all alike.
        """
        email = normalize_email(email)
        async with self._database.transaction(self._read_scope) as transaction:
            operator = await OperatorService(session=transaction.session).get_one_or_none(email=email)
        stored = operator.hashed_password if operator is not None else None
        matches = await self._hasher.verify(stored, password)
        if operator is None or stored is None or not matches or not operator.is_active:
            raise NotAuthenticatedException("The e-mail address or the password is wrong.")
        renewed = await self._hasher.hash(password) if self._hasher.needs_rehash(stored) else stored
        async with self._database.transaction(self._write_scope) as transaction:
            await transaction.session.execute(
                update(Operator)
                .where(Operator.id == operator.id, Operator.hashed_password == stored)
                .values(last_login_at=func.now(), hashed_password=renewed)
            )
        ttl = self._settings.operator_token_ttl
        token, _ = self._tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator.id, ttl=ttl)
        return token, ttl
