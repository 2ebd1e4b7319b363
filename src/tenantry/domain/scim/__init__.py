"""SCIM 2.0: an organization's directory provisions its people and teams."""

from tenantry.domain.scim.controller import ScimController, ScimGroupController, ScimUserController
from tenantry.domain.scim.models import DirectoryGroup, DirectoryUser
from tenantry.domain.scim.schemas import DirectoryCopy
from tenantry.kernel.feature import Feature, Permission, Switch
from tenantry.kernel.personal import PersonalData

FEATURE = Feature(
    name="scim",
    controllers=(ScimController, ScimUserController, ScimGroupController),
    models=(DirectoryUser, DirectoryGroup),
    personal_data=(PersonalData("directory", DirectoryUser, DirectoryCopy, by=("user_id",)),),
    permissions=(
        # The owners' alone to give: by it a directory shuts out whomever it likes, administrators included.
        Permission("scim:manage", "Provision people and teams from a directory, by SCIM.", roles=()),
    ),
    switches=(Switch("scim", "Have a directory provision people and teams."),),
)
