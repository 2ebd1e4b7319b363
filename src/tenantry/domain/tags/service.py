"""Tags of one organization."""

from __future__ import annotations

from typing import TYPE_CHECKING

from advanced_alchemy.repository import SQLAlchemyAsyncRepository

from tenantry.domain.tags.models import Tag
from tenantry.kernel.errors import ValidationFailedException
from tenantry.kernel.service import Service, create_service_provider
from tenantry.kernel.text import slugify

if TYPE_CHECKING:
    from advanced_alchemy.service import ModelDictT

__all__ = ("TagService", "provide_tags")


class TagService(Service[Tag]):
    """Tags; a name's slug is its identity, so `Go Live` and `go-live` are the same tag."""

    class Repo(SQLAlchemyAsyncRepository[Tag]):
        model_type = Tag

    repository_type = Repo
    match_fields = ["slug"]

    async def to_model_on_create(self, data: ModelDictT[Tag]) -> ModelDictT[Tag]:
        return self._populate_model(data)

    async def to_model_on_update(self, data: ModelDictT[Tag]) -> ModelDictT[Tag]:
        return self._populate_model(data)

    @staticmethod
    def _populate_model(data: ModelDictT[Tag]) -> ModelDictT[Tag]:
        if isinstance(data, dict) and "name" in data:
            data["slug"] = tag_slug(data["name"])
        return data


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
