"""Where scim2-server reads and writes: the scoped session of the request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from scim2_models import InvalidPathException, NotImplementedException, SearchRequest
from scim2_server.storage import AsyncScimStorage, SearchPage
from sqlalchemy import ColumnElement, Select, func, nulls_first, nulls_last

from tenantry.domain.identity.users.models import User as Account
from tenantry.domain.scim.filters import Attribute, AttributeMap, Many, condition_of
from tenantry.domain.scim.groups import GROUP_ATTRIBUTES, DirectoryGroups
from tenantry.domain.scim.resources import PROVIDER, Group, User
from tenantry.domain.scim.users import USER_ATTRIBUTES, DirectoryUsers
from tenantry.domain.teams.models import Team

if TYPE_CHECKING:
    from scim2_models import Resource, ResourceType, ResponseParameters
    from sqlalchemy.ext.asyncio import AsyncSession

    from tenantry.domain.scim.authority import DirectoryAuthority

__all__ = ("DirectoryStorage",)


class DirectoryStorage(AsyncScimStorage):
    """Users and groups of the tenant in whose transaction the session is."""

    def __init__(self, session: AsyncSession, authority: DirectoryAuthority, *, lock: bool) -> None:
        self._session = session
        self._users = DirectoryUsers(session, authority, lock=lock)
        self._groups = DirectoryGroups(session, lock=lock)

    async def get(
        self,
        resource_type: ResourceType,
        resource_id: str,
        *,
        response_parameters: ResponseParameters[Any] | None = None,
    ) -> Resource[Any]:
        """Raises NotFoundException. The version is one of everything, whatever is shown."""
        if resource_type.name == "User":
            return await self._users.get(resource_id)
        return await self._groups.get(resource_id, members=_shows_members(response_parameters))

    async def search(
        self, resource_types: list[ResourceType], search_request: SearchRequest[Any], *, position: Any = None
    ) -> SearchPage:
        """One page. Of several kinds at once, users come first (RFC 7644 §3.4.2.1).

        Raises:
            InvalidFilterException, InvalidPathException: an attribute cannot be filtered or sorted by.
            NotImplementedException: several kinds are to be sorted together.
        """
        if len(resource_types) > 1 and search_request.sort_by is not None:
            raise NotImplementedException(detail="Users and groups are not sorted together.")
        skipped, wanted = search_request.start_index_0 or 0, search_request.count or 0
        total, found = 0, list[Any]()
        for resource_type in resource_types:
            store = self._of(resource_type)
            query, order = self._narrow(resource_type, store.query(), search_request, alone=len(resource_types) == 1)
            counted = query.with_only_columns(func.count(), maintain_column_froms=True)
            count = await self._session.scalar(counted) or 0
            total += count
            if wanted > len(found) and skipped < count:
                page = query.order_by(*order).offset(skipped).limit(wanted - len(found))
                rows = (await self._session.execute(page)).all()
                found += await self._read([(row[0], row[1]) for row in rows], store, search_request)
            skipped = max(0, skipped - count)
        return SearchPage(total, found)

    async def create(self, resource_type: ResourceType, resource: Resource[Any]) -> Resource[Any]:
        """Raises what `DirectoryUsers.create` and `DirectoryGroups.create` do."""
        return await self._of(resource_type).create(cast("Any", resource))

    async def update(
        self, resource_type: ResourceType, resource: Resource[Any], *, expected_version: str | None = None
    ) -> Resource[Any]:
        """Raises what the two `update` do. The version is still the one that was read: the row is locked since."""
        return await self._of(resource_type).update(cast("Any", resource))

    async def delete(
        self, resource_type: ResourceType, resource_id: str, *, expected_version: str | None = None
    ) -> None:
        """Raises what the two `delete` do."""
        await self._of(resource_type).delete(resource_id)

    async def _read(
        self, rows: list[Any], store: DirectoryUsers | DirectoryGroups, search: SearchRequest[Any]
    ) -> list[Any]:
        if isinstance(store, DirectoryUsers):
            return list(await store.read(rows))
        return list(await store.read(rows, members=_shows_members(search)))

    def _of(self, resource_type: ResourceType) -> DirectoryUsers | DirectoryGroups:
        return self._users if resource_type.name == "User" else self._groups

    @staticmethod
    def _narrow(
        resource_type: ResourceType, query: Select[Any, Any], search: SearchRequest[Any], *, alone: bool
    ) -> tuple[Select[Any, Any], list[ColumnElement[Any]]]:
        is_user = resource_type.name == "User"
        model, attributes = (User, USER_ATTRIBUTES) if is_user else (Group, GROUP_ATTRIBUTES)
        key: ColumnElement[Any] = (Account.id if is_user else Team.id).expression
        if search.filter is not None:
            query = query.where(condition_of(search.filter, attributes, strict=alone))
        order = [key]
        if search.sort_by is not None:
            column = _sorted_by(search.sort_by, attributes)
            # RFC 7644 §3.4.2.3: what has no value comes last, and first where the order is turned round.
            descending = search.sort_order == SearchRequest.SortOrder.descending
            order = [nulls_first(column.desc()) if descending else nulls_last(column.asc()), key]
        assert PROVIDER.model_for(resource_type) is model  # noqa: S101 - or the attributes would be another's
        return query, order


def _shows_members(parameters: ResponseParameters[Any] | None) -> bool:
    def named(paths: Any) -> bool:
        return any(str(path).rpartition(":")[2].lower().partition(".")[0] == "members" for path in paths)

    if parameters is None:
        return True
    if parameters.attributes:
        return named(parameters.attributes)
    return not any(str(path).rpartition(":")[2].lower() == "members" for path in parameters.excluded_attributes or ())


def _sorted_by(path: Any, attributes: AttributeMap) -> ColumnElement[Any]:
    name = str(path).rpartition(":")[2].lower()
    found = attributes.get(name) or attributes.get(name.partition(".")[0])
    if isinstance(found, Many):
        found = found.parts["value"] if name == "emails" or name == "emails.value" else None
    if not isinstance(found, Attribute):
        raise InvalidPathException(path=str(path), detail=f"there is no sorting by '{path}'")
    return found.column if found.exact or found.folded or found.kind is not str else func.lower(found.column)
