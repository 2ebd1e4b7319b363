"""Routes of tags."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from litestar import Controller, delete, get, patch, post
from litestar.params import Body, FromPath
from litestar.status_codes import HTTP_200_OK

from tenantry.domain.tags.schemas import TagCreate, TagMerge, TagRead, TagUpdate
from tenantry.domain.tags.service import TagService, provide_tags
from tenantry.kernel.schema import Page, changes
from tenantry.kernel.service import Injected, ListQuery, create_list_query, to_struct
from tenantry.tenancy.guards import requires_permission

__all__ = ("TagController",)


class TagController(Controller):
    """Labels that teams can carry."""

    path = "/tags"
    tags = ["tags"]
    dependencies = {"tags_service": provide_tags}

    @get(
        "/",
        operation_id="ListTags",
        summary="List tags",
        guards=[requires_permission("tags:read")],
        dependencies={
            "listing": create_list_query(
                sortable=("name", "slug", "created_at"), searched=("name", "slug", "description"), default="name"
            )
        },
    )
    async def list_tags(self, tags_service: Injected[TagService], listing: Injected[ListQuery]) -> Page[TagRead]:
        """The organization's tags."""
        return await tags_service.page(listing, TagRead)

    @post("/", operation_id="CreateTag", summary="Make a tag", guards=[requires_permission("tags:write")])
    async def create_tag(self, tags_service: Injected[TagService], data: Annotated[TagCreate, Body()]) -> TagRead:
        """Make a tag; its slug follows from its name."""
        return to_struct(await tags_service.make(name=data.name, description=data.description), TagRead)

    @get("/{tag_id:uuid}", operation_id="GetTag", summary="Get a tag", guards=[requires_permission("tags:read")])
    async def get_tag(self, tags_service: Injected[TagService], tag_id: FromPath[UUID]) -> TagRead:
        """One tag."""
        return to_struct(await tags_service.get(tag_id), TagRead)

    @patch(
        "/{tag_id:uuid}", operation_id="UpdateTag", summary="Change a tag", guards=[requires_permission("tags:write")]
    )
    async def update_tag(
        self, tags_service: Injected[TagService], tag_id: FromPath[UUID], data: Annotated[TagUpdate, Body()]
    ) -> TagRead:
        """Change what is sent, and nothing else."""
        return to_struct(await tags_service.change(tag_id, changes(data)), TagRead)

    @delete(
        "/{tag_id:uuid}", operation_id="DeleteTag", summary="Delete a tag", guards=[requires_permission("tags:write")]
    )
    async def delete_tag(self, tags_service: Injected[TagService], tag_id: FromPath[UUID]) -> None:
        """Delete a tag, and take it off every team."""
        await tags_service.remove(tag_id)

    @post(
        "/{tag_id:uuid}/merge",
        operation_id="MergeTag",
        summary="Merge a tag into another",
        status_code=HTTP_200_OK,
        guards=[requires_permission("tags:write")],
    )
    async def merge_tag(
        self, tags_service: Injected[TagService], tag_id: FromPath[UUID], data: Annotated[TagMerge, Body()]
    ) -> TagRead:
        """Let every team that carries this tag carry another instead, and delete this one; the answer is the other."""
        return to_struct(await tags_service.merge(tag_id, data.into_tag_id), TagRead)
