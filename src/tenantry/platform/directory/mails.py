"""What is written to somebody who does not know any more what their organization is called here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy import func, select

from tenantry.jobs.definition import Discard, Hopeless
from tenantry.kernel.mail.message import one_line
from tenantry.mail.definition import Letter, PlatformMail
from tenantry.tenancy.models import Tenant

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.mail.definition import PlatformOccasion

__all__ = ("ORGANIZATIONS_MAIL", "ListedOrganization", "OrganizationsText")

_PAGE = "login"
_MOST = 100
"""Somebody with more of them is a machine's address, or everybody's."""


class ListedOrganization(msgspec.Struct):
    """One of them."""

    name: str
    slug: str
    link: str
    """Where one logs in; empty while it is suspended or archived."""


class OrganizationsText(msgspec.Struct):
    """Of the templates `organizations`."""

    email: str
    organizations: list[ListedOrganization]


async def _compose(session: AsyncSession, occasion: PlatformOccasion) -> Letter:
    if (email := occasion.secret) is None:
        raise Hopeless("there is no address")
    found = await session.execute(
        select(Tenant.name, Tenant.slug, Tenant.status)
        .where(
            Tenant.id.in_(select(func.platform.account_tenants(email).column_valued("tenant_id"))),
            Tenant.status.in_(("active", "suspended", "archived")),
        )
        .order_by(func.lower(Tenant.name), Tenant.slug)
        .limit(_MOST)
    )
    organizations = [
        ListedOrganization(
            # The renderer does so with texts, and not with what is in lists.
            name=one_line(name),
            slug=slug,
            link=occasion.settings.page(_PAGE, tenant=slug) if status == "active" else "",
        )
        for name, slug, status in found
    ]
    if not organizations:
        raise Discard("the address has no account anywhere")
    return Letter(to=email, text=OrganizationsText(email=email, organizations=organizations))


ORGANIZATIONS_MAIL = PlatformMail(
    "organizations", text=OrganizationsText, compose=_compose, folder=Path(__file__).parent / "templates"
)
