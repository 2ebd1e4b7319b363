"""Tags of one organization."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advanced_alchemy.repository import SQLAlchemyAsyncRepository
from sqlalchemy import ScalarResult, select, text

from tenantry.domain.tags.models import Tag
from tenantry.events.record import record_event
from tenantry.kernel.errors import ResourceNotFoundException, ValidationFailedException
from tenantry.kernel.service import Service, changed_fields, create_service_provider
from tenantry.kernel.text import slugify
from tenantry.tenancy.quotas import use_quota

if TYPE_CHECKING:
    from uuid import UUID

    from advanced_alchemy.service import ModelDictT

__all__ = ("TagService", "provide_tags")


class TagService(Service[Tag]):
    """Tags; a name's slug is its identity, so `Go Live` and `go-live` are the same tag."""

    class Repo(SQLAlchemyAsyncRepository[Tag]):
        model_type = Tag

    repository_type = Repo
    match_fields = ["slug"]

    async def make(self, *, name: str, description: str | None = None) -> Tag:
        """A new tag.

        Raises:
            PermissionDeniedException: the plan allows no more of them.
            ValidationFailedException: nothing of the name can be kept.
            advanced_alchemy.exceptions.DuplicateKeyError: there is such a tag.
        """
        await use_quota(self.repository.session, "tags")
        tag = await self.create({"name": name, "description": description})
        await record_event(self.repository.session, "tag.created", subject=tag.id)
        return tag

    async def change(self, tag_id: UUID, changes: dict[str, Any]) -> Tag:
        """Change what is in `changes`.

        Raises:
            ValidationFailedException: nothing of the name can be kept.
            advanced_alchemy.exceptions.NotFoundError: there is no such tag.
            advanced_alchemy.exceptions.DuplicateKeyError: there is a tag of that name.
        """
        if "name" in changes:
            changes = changes | {"slug": tag_slug(changes["name"])}
        tag = await self.get(tag_id)
        changed = changed_fields(tag, changes)
        for field in changed:
            setattr(tag, field, changes[field])
        await self.flush()
        if changed:
            await record_event(self.repository.session, "tag.updated", subject=tag_id, payload={"fields": changed})
        return tag

    async def remove(self, tag_id: UUID) -> None:
        """Delete a tag.

        Raises:
            advanced_alchemy.exceptions.NotFoundError: there is no such tag.
        """
        await self.delete(tag_id)
        await record_event(self.repository.session, "tag.deleted", subject=tag_id)

    async def merge(self, tag_id: UUID, into_tag_id: UUID) -> Tag:
        """Make one tag of two: what carries the first carries the other instead, and the first is gone.

        Raises:
            ValidationFailedException: it is to be merged into itself, or into one that is not there.
            ResourceNotFoundException: there is no such tag.
        """
        if tag_id == into_tag_id:
            raise ValidationFailedException.of("intoTagId", "Expected another tag.")
        session = self.repository.session
        # In one order, so that two merges in opposite directions wait for one another and not for ever.
        locked: ScalarResult[Tag] = await session.scalars(
            select(Tag).where(Tag.id.in_([tag_id, into_tag_id])).order_by(Tag.id).with_for_update()
        )
        found = {tag.id: tag for tag in locked}
        if tag_id not in found:
            raise ResourceNotFoundException("There is no such tag.")
        if into_tag_id not in found:
            raise ValidationFailedException.of("intoTagId", "Expected the id of a tag.")
        await session.execute(_CARRY_OVER, {"tag_id": tag_id, "into_tag_id": into_tag_id})
        await session.delete(found[tag_id])
        await self.flush()
        await record_event(session, "tag.merged", subject=tag_id, payload={"into_tag_id": into_tag_id})
        return found[into_tag_id]

    async def to_model_on_create(self, data: ModelDictT[Tag]) -> ModelDictT[Tag]:
        return self._populate_model(data)

    async def to_model_on_update(self, data: ModelDictT[Tag]) -> ModelDictT[Tag]:
        return self._populate_model(data)

    @staticmethod
    def _populate_model(data: ModelDictT[Tag]) -> ModelDictT[Tag]:
        if isinstance(data, dict) and "name" in data:
            data["slug"] = tag_slug(data["name"])
        return data


# By table name: the teams' package imports this one. The old rows go with the tag.
_CARRY_OVER = text(
    "INSERT INTO team_tag (team_id, tag_id) SELECT team_id, :into_tag_id FROM team_tag WHERE tag_id = :tag_id"
    " ON CONFLICT DO NOTHING"
)


def tag_slug(name: str, *, field: str = "name") -> str:
    """The slug of a tag's name.

    Raises:
        ValidationFailedException: nothing of the name can be kept.
    """
    if slug := slugify(name):
        return slug
    raise ValidationFailedException.of(field, "Expected at least one letter from a to z or a digit.")


provide_tags = create_service_provider(
    TagService,
    error_messages={
        "duplicate_key": "There is such a tag already.",
        "integrity": "The tag cannot be changed like this.",
        "not_found": "There is no such tag.",
    },
)
