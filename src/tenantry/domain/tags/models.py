"""Labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advanced_alchemy.mixins import UniqueMixin
from sqlalchemy import ColumnElement, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from tenantry.kernel.text import slugify
from tenantry.tenancy.models import SlugKey, TenantBase, length_check

if TYPE_CHECKING:
    from collections.abc import Hashable

__all__ = ("Tag",)


class Tag(UniqueMixin, SlugKey, TenantBase):
    """A label that teams can carry. Two names with one slug are one tag."""

    __tablename__ = "tag"
    __table_args__ = (
        *SlugKey.constraints("tag"),
        UniqueConstraint("name", name="uq_tag_name"),
        length_check("name", 100, minimum=1),
        length_check("description", 500),
    )

    name: Mapped[str] = mapped_column(Text)
    description: Mapped[str | None] = mapped_column(Text)

    @classmethod
    def unique_hash(cls, *args: Any, **kwargs: Any) -> Hashable:
        return slugify(kwargs["name"])

    @classmethod
    def unique_filter(cls, *args: Any, **kwargs: Any) -> ColumnElement[bool]:
        return cls.slug == slugify(kwargs["name"])
