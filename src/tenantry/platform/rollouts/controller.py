"""Routes of rollouts."""

from __future__ import annotations

from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import Body, FromPath, HeaderParameter, QueryParameter
from litestar.response import Stream
from litestar.status_codes import HTTP_200_OK, HTTP_202_ACCEPTED, HTTP_204_NO_CONTENT
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.errors import NotAuthenticatedException
from tenantry.kernel.schema import Page, Slug
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.kernel.settings import Settings
from tenantry.platform.access import actor_of
from tenantry.platform.rollouts import steering
from tenantry.platform.rollouts.events import PERMISSION, RolloutEvents, has_ended, state_of
from tenantry.platform.rollouts.models import Rollout
from tenantry.platform.rollouts.schemas import (
    RolloutCreate,
    RolloutDetail,
    RolloutEvent,
    RolloutPlan,
    RolloutRead,
    RolloutTenantRead,
)
from tenantry.platform.rollouts.service import (
    RolloutService,
    RolloutTenantService,
    provide_rollout_tenants,
    provide_rollouts,
    read_plan,
)
from tenantry.tenancy.guards import requires_permission
from tenantry.tenancy.request import request_transaction

__all__ = ("RolloutController",)

_STATUS = "With this status alone."
_EVENT_STREAM = "text/event-stream"


class RolloutController(Controller):
    """Bringing every tenant's schema to a revision."""

    path = "/rollouts"
    tags = ["platform"]
    dependencies = {"rollouts": provide_rollouts}

    @get(
        "/",
        operation_id="ListRollouts",
        summary="List rollouts",
        guards=[requires_permission(PERMISSION)],
        dependencies={
            "listing": create_list_query(
                sortable=("created_at", "finished_at", "status", "target"),
                searched=("target", "requested_by"),
                default="created_at",
                descending=True,
                others=("status",),
            )
        },
    )
    async def list_rollouts(
        self,
        rollouts: Injected[RolloutService],
        listing: Injected[ListQuery],
        status: Annotated[
            Literal["running", "halted", "done", "cancelled"] | None, QueryParameter(description=_STATUS)
        ] = None,
    ) -> Page[RolloutRead]:
        """All rollouts, the newest first."""
        wanted: list[ColumnElement[bool]] = [] if status is None else [Rollout.status == status]
        return await rollouts.page(listing, RolloutRead, *wanted)

    @post(
        "/",
        operation_id="StartRollout",
        summary="Start a rollout",
        status_code=HTTP_202_ACCEPTED,
        guards=[requires_permission("rollouts:write")],
        response_headers=[
            ResponseHeader(name="Location", description="The new rollout's address.", documentation_only=True)
        ],
    )
    async def start_rollout(
        self,
        request: Request[Any, Any, Any],
        db_session: Injected[AsyncSession],
        data: Annotated[RolloutCreate, Body()],
    ) -> Response[RolloutRead]:
        """Write down that the tenants are to be migrated, in waves: a provisioner does it. One runs at a time."""
        settings: Settings = request.app.state.settings
        made = await steering.start_rollout(
            db_session,
            target=data.target,
            canary=data.canary,
            concurrency=data.concurrency or settings.rollout_concurrency,
            halt_after=data.halt_after,
            lock_timeout=data.lock_timeout or round(settings.rollout_lock_timeout * 1000),
            max_attempts=data.max_attempts or settings.rollout_attempts,
            only=data.only,
            requested_by=actor_of(request),
        )
        return Response(
            to_struct(made, RolloutRead),
            status_code=HTTP_202_ACCEPTED,
            headers={"Location": f"/platform/rollouts/{made.id}"},
        )

    @get(
        "/plan",
        operation_id="PlanRollout",
        summary="Show what a rollout would do",
        guards=[requires_permission(PERMISSION)],
    )
    async def plan_rollout(
        self,
        db_session: Injected[AsyncSession],
        target: Annotated[
            str | None,
            QueryParameter(
                min_length=1, max_length=64, description="A revision; by default the newest of this release."
            ),
        ] = None,
        only: Annotated[
            list[Slug] | None, QueryParameter(max_items=100, description="A tenant's slug; may be given several times.")
        ] = None,
    ) -> RolloutPlan:
        """How many tenants are at which revision, and which steps lead from there. Nothing is changed."""
        return await read_plan(db_session, target, only)

    @get(
        "/{rollout_id:uuid}",
        operation_id="GetRollout",
        summary="Get a rollout",
        guards=[requires_permission(PERMISSION)],
    )
    async def get_rollout(self, rollouts: Injected[RolloutService], rollout_id: FromPath[UUID]) -> RolloutDetail:
        """How far it is: its tenants by status and wave, the rate and the estimated end."""
        return await rollouts.detail(rollout_id)

    @get(
        "/{rollout_id:uuid}/tenants",
        operation_id="ListRolloutTenants",
        summary="List a rollout's tenants",
        guards=[requires_permission(PERMISSION)],
        dependencies={
            "rollout_tenants": provide_rollout_tenants,
            "listing": create_list_query(
                sortable=("created_at", "finished_at", "status", "wave", "attempts", "duration"),
                searched=("slug",),
                default="created_at",
                search_elsewhere=True,
                others=("status",),
            ),
        },
    )
    async def list_tenants(
        self,
        rollout_tenants: Injected[RolloutTenantService],
        listing: Injected[ListQuery],
        rollout_id: FromPath[UUID],
        status: Annotated[Literal["pending", "done", "failed"] | None, QueryParameter(description=_STATUS)] = None,
    ) -> Page[RolloutTenantRead]:
        """What became of each tenant; of those that failed, the statement and what the database said."""
        return await rollout_tenants.of_rollout(rollout_id, listing, status=status)

    @post(
        "/{rollout_id:uuid}/resume",
        operation_id="ResumeRollout",
        summary="Resume a rollout",
        status_code=HTTP_200_OK,
        guards=[requires_permission("rollouts:write")],
    )
    async def resume_rollout(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], rollout_id: FromPath[UUID]
    ) -> RolloutRead:
        """Let a halted or cancelled one go on; its failed tenants are tried again."""
        return to_struct(await steering.resume(db_session, rollout_id, actor=actor_of(request)), RolloutRead)

    @post(
        "/{rollout_id:uuid}/cancel",
        operation_id="CancelRollout",
        summary="Cancel a rollout",
        status_code=HTTP_200_OK,
        guards=[requires_permission("rollouts:write")],
    )
    async def cancel_rollout(
        self, request: Request[Any, Any, Any], db_session: Injected[AsyncSession], rollout_id: FromPath[UUID]
    ) -> RolloutRead:
        """End a running one. The tenants under way are finished, the others stay as they are."""
        return to_struct(await steering.cancel(db_session, rollout_id, actor=actor_of(request)), RolloutRead)

    @get(
        "/{rollout_id:uuid}/events",
        operation_id="FollowRollout",
        summary="Follow a rollout",
        guards=[requires_permission(PERMISSION)],
        responses={
            # The schema is that of each event, as tools read it for this media type before OpenAPI 3.2.
            HTTP_200_OK: ResponseSpec(
                RolloutEvent,
                media_type=_EVENT_STREAM,
                generate_examples=False,
                description="Events `progress` and `end`; after `end` the stream is over.",
            ),
            HTTP_204_NO_CONTENT: ResponseSpec(
                None, description="The rollout has ended, and Last-Event-ID says that the client was told."
            ),
        },
    )
    async def follow_rollout(
        self,
        request: Request[Any, Any, Any],
        rollout_id: FromPath[UUID],
        last_event_id: Annotated[
            str | None,
            HeaderParameter(
                name="Last-Event-ID",
                max_length=100,
                description="The id of the last event that the client has seen; it is not sent again.",
            ),
        ] = None,
    ) -> Response[Any]:
        """Server-sent events: the state at once, then whenever it changes, until the rollout has ended.

        A stream may break at any time, when a release is deployed say; the client comes back with Last-Event-ID.
        """
        events: RolloutEvents = request.app.state.rollout_events
        # The guards' transaction: what follows is read in others, and none is open while nothing is read.
        await request_transaction(request).pause()
        found = await events.look(request, rollout_id)
        if found is None:
            raise NotAuthenticatedException("The session has ended.", invalid_token=True)
        if has_ended(found) and last_event_id == state_of(found):
            # 204 is what keeps a browser from coming back (WHATWG HTML §9.2.3).
            return Response(None, status_code=HTTP_204_NO_CONTENT)
        return Stream(
            events.stream(request, found, last_event_id),
            media_type=_EVENT_STREAM,
            # nginx would keep the events until it has a page of them.
            headers={"X-Accel-Buffering": "no"},
        )
