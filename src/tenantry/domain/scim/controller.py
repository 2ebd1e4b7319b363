"""Routes of SCIM 2.0, by which an organization's directory provisions people and teams."""

from __future__ import annotations

from typing import Annotated, Any
from uuid import UUID

import msgspec
from litestar import Controller, Request, Response, delete, get, patch, post, put
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath, QueryParameter
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED
from scim2_models import InvalidSyntaxException, SCIMException
from scim2_server.handler import AsyncScimHandler
from scim2_server.requests import ScimRequest
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.domain.scim.authority import DirectoryAuthority
from tenantry.domain.scim.errors import SCIM_ERRORS, SCIM_JSON, SCIM_ROOT, as_refusal
from tenantry.domain.scim.schemas import ScimGroup, ScimList, ScimPatch, ScimResource, ScimSearch, ScimUser
from tenantry.domain.scim.service import SERVICE
from tenantry.domain.scim.storage import DirectoryStorage
from tenantry.kernel.http import answer_errors_in
from tenantry.kernel.service import Injected
from tenantry.tenancy.guards import principal_of, requires_feature, requires_permission
from tenantry.tenancy.request import is_safe

__all__ = ("ScimController", "ScimGroupController", "ScimUserController")

answer_errors_in(SCIM_ERRORS)

_GUARD = requires_permission("scim:manage")
_FEATURE = requires_feature("scim")
_PREFIX = SCIM_ROOT.removeprefix("/api")
_USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
_GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"

_Filter = Annotated[
    str | None,
    QueryParameter(
        description='Such as `userName eq "ann@example.com"` (RFC 7644, section 3.4.2.2); at most 1,000 characters.'
    ),
]
_StartIndex = Annotated[int | None, QueryParameter(name="startIndex", description="The first one's number, from 1.")]
_Count = Annotated[int | None, QueryParameter(description="How many on a page: at most 200, which is the default.")]
_SortBy = Annotated[str | None, QueryParameter(name="sortBy", description="An attribute.")]
_SortOrder = Annotated[str | None, QueryParameter(name="sortOrder", description="`ascending` or `descending`.")]
_Attributes = Annotated[str | None, QueryParameter(description="Attributes to show, separated by commas.")]
_Excluded = Annotated[
    str | None, QueryParameter(name="excludedAttributes", description="Attributes to leave out, likewise.")
]


def _answers(container: type[Any] | None, status: int = HTTP_200_OK, **others: type[Any] | None) -> dict[int, Any]:
    found = {status: container} | {int(name[1:]): each for name, each in others.items()}
    return {
        number: ResponseSpec(
            data_container=each, media_type=SCIM_JSON, generate_examples=False, description="As asked."
        )
        for number, each in found.items()
    }


async def _serve(request: Request[Any, Any, Any], session: AsyncSession) -> Response[bytes]:
    """Have the library answer, on the request's session.

    Raises:
        ApplicationException: as SCIM's libraries or this package refuse; what was written is rolled back.
    """
    authority = DirectoryAuthority(principal_of(request), session, request.app.state.permissions)
    storage = DirectoryStorage(session, authority, lock=not is_safe(request.scope))
    try:
        answer = await AsyncScimHandler(SERVICE, storage).handle(
            ScimRequest(
                method=request.method,
                base_url=f"{str(request.base_url).rstrip('/')}{SCIM_ROOT}",
                path=request.url.path.removeprefix(SCIM_ROOT),
                query=dict(request.query_params),
                headers=request.headers,
                body=await request.body(),
            )
        )
    except SCIMException as error:
        raise as_refusal(error) from error
    except RecursionError as error:
        raise as_refusal(InvalidSyntaxException(detail="What was sent is nested too deeply.")) from error
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-type"}
    content = b"" if answer.body is None else msgspec.json.encode(answer.body)
    return Response(content, status_code=int(answer.status), headers=headers, media_type=SCIM_JSON)


class ScimController(Controller):
    """What this service can do, for directories to find out; and a search in everything at once."""

    path = _PREFIX
    tags = ["SCIM"]
    guards = [_GUARD, _FEATURE]

    @get(
        "/ServiceProviderConfig",
        operation_id="GetScimServiceProviderConfig",
        summary="What SCIM can do here",
        responses=_answers(ScimResource),
    )
    async def service_provider_config(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]
    ) -> Response[bytes]:
        """Filters, sorting, PATCH and entity tags; no bulk operations, and no passwords."""
        return await _serve(request, db_session)

    @get(
        "/ResourceTypes",
        operation_id="ListScimResourceTypes",
        summary="Kinds of resources of SCIM",
        responses=_answers(ScimList),
    )
    async def resource_types(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]
    ) -> Response[bytes]:
        """Users and groups."""
        return await _serve(request, db_session)

    @get(
        "/ResourceTypes/User",
        operation_id="GetScimUserType",
        summary="What users are to SCIM",
        responses=_answers(ScimResource),
    )
    async def user_type(self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]) -> Response[bytes]:
        """People with an account."""
        return await _serve(request, db_session)

    @get(
        "/ResourceTypes/Group",
        operation_id="GetScimGroupType",
        summary="What groups are to SCIM",
        responses=_answers(ScimResource),
    )
    async def group_type(self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]) -> Response[bytes]:
        """Teams."""
        return await _serve(request, db_session)

    @get("/Schemas", operation_id="ListScimSchemas", summary="Attributes of SCIM", responses=_answers(ScimList))
    async def schemas(self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]) -> Response[bytes]:
        """The attributes that are kept. What else is sent is passed over."""
        return await _serve(request, db_session)

    @get(
        f"/Schemas/{_USER_SCHEMA}",
        operation_id="GetScimUserSchema",
        summary="Attributes of SCIM's users",
        responses=_answers(ScimResource),
    )
    async def user_schema(self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]) -> Response[bytes]:
        """The attributes of a user that are kept."""
        return await _serve(request, db_session)

    @get(
        f"/Schemas/{_GROUP_SCHEMA}",
        operation_id="GetScimGroupSchema",
        summary="Attributes of SCIM's groups",
        responses=_answers(ScimResource),
    )
    async def group_schema(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession]
    ) -> Response[bytes]:
        """The attributes of a group that are kept."""
        return await _serve(request, db_session)

    @post(
        "/.search",
        operation_id="SearchScim",
        summary="Search users and groups by SCIM",
        status_code=HTTP_200_OK,
        responses=_answers(ScimList),
    )
    async def search(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], data: Annotated[ScimSearch, Body()]
    ) -> Response[bytes]:
        """Users first, then groups. Both together are not sorted."""
        return await _serve(request, db_session)


class ScimUserController(Controller):
    """The organization's people, as its directory provisions them."""

    path = f"{_PREFIX}/Users"
    opt = {"etag": False}
    """Its tags are weak ones of its own (RFC 7644 §3.14), which the library compares."""
    tags = ["SCIM"]
    guards = [_GUARD, _FEATURE]

    @get("/", operation_id="ListScimUsers", summary="List users by SCIM", responses=_answers(ScimList))
    async def list_users(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        filter: _Filter = None,  # noqa: A002 - as the parameter is called (RFC 7644 §3.4.2)
        start_index: _StartIndex = None,
        count: _Count = None,
        sort_by: _SortBy = None,
        sort_order: _SortOrder = None,
        attributes: _Attributes = None,
        excluded_attributes: _Excluded = None,
    ) -> Response[bytes]:
        """Everybody with an account but whom the directory has deleted, whether it made them or not."""
        return await _serve(request, db_session)

    @post(
        "/",
        operation_id="CreateScimUser",
        opt={"idempotent": False},
        summary="Provision a user by SCIM",
        responses=_answers(ScimResource, HTTP_201_CREATED),
    )
    async def create_user(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], data: Annotated[ScimUser, Body()]
    ) -> Response[bytes]:
        """Make an account without a password; or let in again whom the directory had deleted, with the roles of now."""
        return await _serve(request, db_session)

    @post(
        "/.search",
        operation_id="SearchScimUsers",
        summary="Search users by SCIM",
        status_code=HTTP_200_OK,
        responses=_answers(ScimList),
    )
    async def search_users(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], data: Annotated[ScimSearch, Body()]
    ) -> Response[bytes]:
        """The list, with its parameters in a body, so that no log of addresses has them."""
        return await _serve(request, db_session)

    @get(
        "/{user_id:uuid}",
        operation_id="GetScimUser",
        summary="Get a user by SCIM",
        responses=_answers(ScimResource),
    )
    async def get_user(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        user_id: FromPath[UUID],
        attributes: _Attributes = None,
        excluded_attributes: _Excluded = None,
    ) -> Response[bytes]:
        """One user. 304 where `If-None-Match` names the version."""
        return await _serve(request, db_session)

    @put(
        "/{user_id:uuid}",
        operation_id="ReplaceScimUser",
        summary="Replace a user by SCIM",
        responses=_answers(ScimResource),
    )
    async def replace_user(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        user_id: FromPath[UUID],
        data: Annotated[ScimUser, Body()],
    ) -> Response[bytes]:
        """Set all that is sent, and clear what is left out but `active` and `roles`, which stay."""
        return await _serve(request, db_session)

    @patch(
        "/{user_id:uuid}",
        operation_id="PatchScimUser",
        summary="Change a user by SCIM",
        responses=_answers(ScimResource, s204=None),
    )
    async def patch_user(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        user_id: FromPath[UUID],
        data: Annotated[ScimPatch, Body()],
        attributes: _Attributes = None,
        excluded_attributes: _Excluded = None,
    ) -> Response[bytes]:
        """Apply operations, all or none; 204, or the user where `attributes` asks for something of them.

        `active` false ends the user's sessions and API keys with the next request.
        """
        return await _serve(request, db_session)

    @delete("/{user_id:uuid}", operation_id="DeleteScimUser", summary="Deprovision a user by SCIM")
    async def delete_user(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], user_id: FromPath[UUID]
    ) -> None:
        """Shut the person out and take them out of teams; the account stays, and the directory does not see it."""
        await _serve(request, db_session)


class ScimGroupController(Controller):
    """The organization's teams, as its directory provisions them."""

    path = f"{_PREFIX}/Groups"
    opt = {"etag": False}
    tags = ["SCIM"]
    guards = [_GUARD, _FEATURE]

    @get("/", operation_id="ListScimGroups", summary="List groups by SCIM", responses=_answers(ScimList))
    async def list_groups(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        filter: _Filter = None,  # noqa: A002 - as the parameter is called (RFC 7644 §3.4.2)
        start_index: _StartIndex = None,
        count: _Count = None,
        sort_by: _SortBy = None,
        sort_order: _SortOrder = None,
        attributes: _Attributes = None,
        excluded_attributes: _Excluded = None,
    ) -> Response[bytes]:
        """The organization's teams but those that the directory has let go of."""
        return await _serve(request, db_session)

    @post(
        "/",
        operation_id="CreateScimGroup",
        opt={"idempotent": False},
        summary="Provision a group by SCIM",
        responses=_answers(ScimResource, HTTP_201_CREATED),
    )
    async def create_group(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], data: Annotated[ScimGroup, Body()]
    ) -> Response[bytes]:
        """Make a team without an owner, run by the directory and by whoever may run every team."""
        return await _serve(request, db_session)

    @post(
        "/.search",
        operation_id="SearchScimGroups",
        summary="Search groups by SCIM",
        status_code=HTTP_200_OK,
        responses=_answers(ScimList),
    )
    async def search_groups(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], data: Annotated[ScimSearch, Body()]
    ) -> Response[bytes]:
        """The list, with its parameters in a body."""
        return await _serve(request, db_session)

    @get(
        "/{team_id:uuid}",
        operation_id="GetScimGroup",
        summary="Get a group by SCIM",
        responses=_answers(ScimResource),
    )
    async def get_group(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        team_id: FromPath[UUID],
        attributes: _Attributes = None,
        excluded_attributes: _Excluded = None,
    ) -> Response[bytes]:
        """One group with its members, unless `excludedAttributes` leaves them out."""
        return await _serve(request, db_session)

    @put(
        "/{team_id:uuid}",
        operation_id="ReplaceScimGroup",
        summary="Replace a group by SCIM",
        responses=_answers(ScimResource),
    )
    async def replace_group(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        team_id: FromPath[UUID],
        data: Annotated[ScimGroup, Body()],
    ) -> Response[bytes]:
        """Set name and members: who is not sent is taken out."""
        return await _serve(request, db_session)

    @patch(
        "/{team_id:uuid}",
        operation_id="PatchScimGroup",
        summary="Change a group by SCIM",
        responses=_answers(ScimResource, s204=None),
    )
    async def patch_group(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        team_id: FromPath[UUID],
        data: Annotated[ScimPatch, Body()],
        attributes: _Attributes = None,
        excluded_attributes: _Excluded = None,
    ) -> Response[bytes]:
        """Put members in, take them out, or rename the team; all or none. 204, or the group where `attributes` asks."""
        return await _serve(request, db_session)

    @delete("/{team_id:uuid}", operation_id="DeleteScimGroup", summary="Deprovision a group by SCIM")
    async def delete_group(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], team_id: FromPath[UUID]
    ) -> None:
        """Delete a team that the directory made; one that people made stays, and the directory sees it no more."""
        await _serve(request, db_session)
