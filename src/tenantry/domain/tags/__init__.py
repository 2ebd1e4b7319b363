"""Labels."""

from tenantry.domain.tags.controller import TagController
from tenantry.domain.tags.models import Tag
from tenantry.domain.tags.schemas import TagChanged, TagMerged
from tenantry.events.definition import Event
from tenantry.kernel.feature import Feature, Permission, Quota
from tenantry.tenancy.entitlements import rows_of

FEATURE = Feature(
    name="tags",
    controllers=(TagController,),
    models=(Tag,),
    permissions=(
        Permission("tags:read", "See tags.", roles=("admin", "member", "viewer")),
        Permission("tags:write", "Make, change and delete tags.", roles=("admin", "member"), operators=True),
    ),
    identifiers={"tag_id": Tag, "into_tag_id": Tag},
    events=(
        Event("tag.created", "A tag was made."),
        Event("tag.updated", "A tag was changed.", TagChanged),
        Event("tag.merged", "A tag became one with another, and is gone.", TagMerged),
        Event("tag.deleted", "A tag was deleted."),
    ),
    quotas=(Quota("tags", "Tags.", rows_of(Tag)),),
)
