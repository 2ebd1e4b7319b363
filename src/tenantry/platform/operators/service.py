"""Operators' accounts and log-in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import func, select, update

from tenantry.kernel.errors import (
    ConflictException,
    NotAuthenticatedException,
    ValidationFailedException,
    define_problem,
)
from tenantry.kernel.schema import normalize_email
from tenantry.kernel.security import AUDIENCE_PLATFORM, PasswordHasher, Tokens
from tenantry.kernel.service import Service, create_service_provider
from tenantry.platform.audit.service import record
from tenantry.platform.operators.models import OPERATOR_ROLES, Operator

if TYPE_CHECKING:
    from uuid import UUID

    from tenantry.kernel.settings import Settings
    from tenantry.tenancy.database import Database
    from tenantry.tenancy.scope import Scope

__all__ = ("OperatorAuthenticator", "OperatorService", "provide_operators")

LAST_OWNER = define_problem(
    "last-platform-owner",
    409,
    "Last owner",
    "Somebody must remain who may do everything: this is the platform's last active owner.",
)


class OperatorService(Service[Operator]):
    """Operators' accounts."""

    class Repo(SQLAlchemyAsyncRepository[Operator]):
        model_type = Operator

    repository_type = Repo
    match_fields = ["email"]

    async def add(
        self, *, email: str, hashed_password: str, role: str, actor: str, name: str | None = None
    ) -> Operator:
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
        made = await self.create({"email": email, "name": name, "hashed_password": hashed_password, "role": role})
        record(
            self.repository.session,
            actor=actor,
            action="operator.create",
            target=str(made.id),
            details={"role": role},
        )
        return made

    async def change(self, operator_id: UUID, changes: dict[str, Any], *, actor: str) -> Operator:
        """Change an operator's name or role, or take their access away.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is none.
            ConflictException: no active owner would be left to run the platform.
        """
        session = self.repository.session
        # Locked in one order, so that two owners who demote each other at once do not both succeed.
        owners = select(Operator.id).where(Operator.role == "owner", Operator.is_active).order_by(Operator.id)
        active_owners = set(await session.scalars(owners.with_for_update()))
        operator = await self.get(operator_id)
        # As whoever changes them at this moment leaves them; the caller may have read them long before.
        await session.refresh(operator, with_for_update=True)
        changed = {name: value for name, value in changes.items() if getattr(operator, name) != value}
        if not changed:
            return operator
        before = {name: getattr(operator, name) for name in changed}
        for name, value in changed.items():
            setattr(operator, name, value)
        remains = operator.role == "owner" and operator.is_active
        if active_owners == {operator_id} and not remains:
            raise ConflictException("This is the last active owner: make another one first.", problem=LAST_OWNER)
        record(
            session,
            actor=actor,
            action="operator.change",
            target=str(operator_id),
            # A name is personal: of it, only that it changed.
            details={
                name: True if name == "name" else {"from": before[name], "to": value} for name, value in changed.items()
            },
        )
        await session.flush()
        return operator


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
        matches = await self._hasher.verify(stored, password, key="operators")
        if operator is None or stored is None or not matches or not operator.is_active:
            raise NotAuthenticatedException("The e-mail address or the password is wrong.")
        renewed = stored
        if self._hasher.needs_rehash(stored):
            renewed = await self._hasher.hash(password, key="operators")
        async with self._database.transaction(self._write_scope) as transaction:
            await transaction.session.execute(
                update(Operator)
                .where(Operator.id == operator.id, Operator.hashed_password == stored)
                .values(last_login_at=func.now(), hashed_password=renewed)
            )
            record(
                transaction.session,
                actor=f"operator:{operator.id}",
                action="operator.login",
                target=str(operator.id),
            )
        ttl = self._settings.operator_token_ttl
        token, _ = self._tokens.issue(audience=AUDIENCE_PLATFORM, sub=operator.id, ttl=ttl)
        return token, ttl


provide_operators = create_service_provider(
    OperatorService,
    error_messages={
        "duplicate_key": "This address is an operator's already.",
        "not_found": "There is no such operator.",
    },
)
