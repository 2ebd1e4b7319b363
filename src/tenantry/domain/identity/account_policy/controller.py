"""Routes of the policy of accounts."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Controller, Request, get, patch
from litestar.params import Body
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.identity.account_policy.models import AccountPolicy
from tenantry.domain.identity.account_policy.schemas import AccountPolicyRead, AccountPolicyUpdate, SignUpRole
from tenantry.domain.identity.account_policy.service import AccountPolicies
from tenantry.domain.roles.models import Role
from tenantry.kernel.schema import changes
from tenantry.kernel.service import Injected
from tenantry.mail.definition import require_mail
from tenantry.tenancy.guards import principal_of, requires_permission, requires_person

__all__ = ("AccountPolicyController",)


class AccountPolicyController(Controller):
    """Who may make an account, and who is let in."""

    path = "/organization/account-policy"
    tags = ["organization"]

    @get(
        "/",
        operation_id="GetAccountPolicy",
        summary="Get the policy of accounts",
        guards=[requires_permission("account_policy:manage")],
    )
    async def get_policy(self, db_session: Injected[AsyncSession]) -> AccountPolicyRead:
        """Who may make an account without an invitation, and whether addresses have to be confirmed."""
        return _read(*await AccountPolicies(db_session).read())

    @patch(
        "/",
        operation_id="UpdateAccountPolicy",
        summary="Change the policy of accounts",
        # A machine that could open the organization to an address of its own would be a person with the next request.
        guards=[requires_permission("account_policy:manage"), requires_person],
    )
    async def update_policy(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        data: Annotated[AccountPolicyUpdate, Body()],
    ) -> AccountPolicyRead:
        """Let people sign up by themselves, or not; keep those out whose address is not confirmed, or not.

        Newcomers get a role that permits no more than `member` and than the caller's own. `domains` takes domains of
        the organization's own: whoever has a mailbox there may join. Once `verifiedOnly` is true, the sessions of
        people whose address is not confirmed end.
        """
        wanted = changes(data)
        if wanted.get("sign_up", "off") != "off" or wanted.get("verified_only"):
            require_mail(request.app.state.settings)
        policies = AccountPolicies(db_session)
        return _read(*await policies.change(wanted, principal_of(request), request.app.state.permissions))


def _read(policy: AccountPolicy, role: Role | None) -> AccountPolicyRead:
    return AccountPolicyRead(
        sign_up=policy.sign_up,  # type: ignore[arg-type] # the table's CHECK has the same words
        domains=policy.domains,
        role=None if role is None else SignUpRole(id=role.id, slug=role.slug, name=role.name),
        verified_only=policy.verified_only,
    )
