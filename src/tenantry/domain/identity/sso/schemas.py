"""Single sign-on on the wire."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from msgspec import Meta, field

from tenantry.domain.identity.sessions.schemas import SigningIn
from tenantry.events.definition import Payload
from tenantry.kernel.schema import END, UNSET, BaseStruct, Email, ShortText, Slug, UnsetType, Update

__all__ = (
    "SsoChanged",
    "SsoCheck",
    "SsoConnectionCreate",
    "SsoConnectionRead",
    "SsoConnectionUpdate",
    "SsoIdentityCopy",
    "SsoIdentityRead",
    "SsoLinked",
    "SsoRole",
    "SsoStartPayload",
    "SsoStartResponse",
    "SsoTokenPayload",
    "SsoUser",
)

Issuer = Annotated[str, Meta(min_length=1, max_length=500, pattern=rf"^[\x21-\x7e]+{END}")]
"""As its discovery document spells it."""
ClientText = Annotated[str, Meta(min_length=1, max_length=500, pattern=rf"^[\x20-\x7e]+{END}")]
"""Of printable ASCII (RFC 6749, appendix A)."""
SecretText = Annotated[str, Meta(min_length=1, max_length=2000, pattern=rf"^[\x20-\x7e]+{END}")]
Scope = Annotated[str, Meta(min_length=1, max_length=200, pattern=rf"^[\x21\x23-\x5b\x5d-\x7e]+{END}")]
Scopes = Annotated[list[Scope], Meta(max_length=40)]
Domain = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=253,
        pattern=rf"^(?:[A-Za-z0-9](?:[A-Za-z0-9-]{{0,61}}[A-Za-z0-9])?\.)+[A-Za-z0-9-]{{1,63}}{END}",
    ),
]
Domains = Annotated[list[Domain], Meta(max_length=100)]
ClaimName = Annotated[str, Meta(min_length=1, max_length=200, pattern=rf"^[\x21-\x7e]+{END}")]
ClaimValue = Annotated[str, Meta(min_length=1, max_length=500, pattern=rf"^[^\x00-\x1f\x7f]+{END}")]
Roles = Annotated[list[Slug], Meta(max_length=20)]
Credential = Annotated[str, Meta(min_length=1, max_length=200, pattern=rf"^[A-Za-z0-9_-]+{END}")]
Challenge = Annotated[str, Meta(min_length=43, max_length=43, pattern=rf"^[A-Za-z0-9_-]{{43}}{END}")]
Verifier = Annotated[str, Meta(min_length=43, max_length=128, pattern=rf"^[A-Za-z0-9._~-]+{END}")]


class SsoRole(BaseStruct):
    """A role that follows from a claim."""

    value: ClaimValue
    """A value of the claim, to the letter: the name or the id of a group, say."""
    role: Slug


RoleMapping = Annotated[list[SsoRole], Meta(max_length=200)]


class SsoConnectionRead(BaseStruct):
    """An OpenID provider of the organization's own; the client's secret is not shown."""

    id: UUID
    name: str
    issuer: str
    client_id: str
    scopes: list[str]
    domains: list[str]
    """People with verified addresses of these are linked to their accounts the first time."""
    is_enabled: bool
    is_enforced: bool
    """People of the domains sign in this way, and not with a password; owners may do both."""
    provisions_users: bool
    """Whether whoever has no account gets one."""
    owners_allowed: bool
    """Whether owners and superusers may sign in this way, and the mapping make owners."""
    default_roles: list[str]
    """Of whom the connection makes, or the mapping gives no other."""
    role_claim: str | None
    """Roles follow from this claim at each log-in; without it, they are the organization's to change."""
    role_mapping: list[SsoRole]
    redirect_uri: str | None
    """To be registered with the provider; null where TENANTRY_API_URL is not set."""
    last_used_at: datetime | None
    last_failed_at: datetime | None
    last_failure: str | None
    """What was wrong with the provider's answers."""
    created_at: datetime
    updated_at: datetime


class SsoConnectionCreate(BaseStruct):
    name: ShortText
    issuer: Issuer
    """`https://…`, as the provider's discovery document spells it."""
    client_id: ClientText
    client_secret: SecretText
    """Sealed, and never shown again."""
    scopes: Scopes = field(default_factory=lambda: ["openid", "email", "profile"])
    domains: Domains = field(default_factory=list)
    is_enabled: bool = True
    is_enforced: bool = False
    provisions_users: bool = False
    owners_allowed: bool = False
    default_roles: Roles = field(default_factory=lambda: ["member"])
    role_claim: ClaimName | None = None
    role_mapping: RoleMapping = field(default_factory=list)


class SsoConnectionUpdate(Update):
    name: ShortText | UnsetType = UNSET
    issuer: Issuer | UnsetType = UNSET
    """Another one takes the secret as well, and forgets who people are at the one before."""
    client_id: ClientText | UnsetType = UNSET
    client_secret: SecretText | UnsetType = UNSET
    scopes: Scopes | UnsetType = UNSET
    domains: Domains | UnsetType = UNSET
    is_enabled: bool | UnsetType = UNSET
    is_enforced: bool | UnsetType = UNSET
    provisions_users: bool | UnsetType = UNSET
    owners_allowed: bool | UnsetType = UNSET
    default_roles: Roles | UnsetType = UNSET
    role_claim: ClaimName | UnsetType | None = UNSET
    role_mapping: RoleMapping | UnsetType = UNSET


class SsoCheck(BaseStruct):
    """Whether a provider says of itself what it must."""

    is_good: bool
    problem: str | None
    authorization_endpoint: str | None
    algorithms: list[str]
    """By which its ID tokens may be signed."""


class SsoUser(BaseStruct):
    id: UUID
    email: str
    name: str | None


class SsoIdentityRead(BaseStruct):
    """Who a user is at a provider."""

    id: UUID
    subject: str
    user: SsoUser
    last_login_at: datetime | None
    created_at: datetime


class SsoStartPayload(BaseStruct):
    code_challenge: Challenge
    """Of a verifier that the page keeps to itself, by S256 (RFC 7636); POST /api/auth/sso/token asks for it."""
    tenant: Slug | None = None
    """The organization's slug; may be left out where the host names it."""
    email: Email | None = None
    """Whose domain says by which connection."""
    connection_id: UUID | None = None
    """The connection, where it is known. With neither, the organization's only one."""


class SsoStartResponse(BaseStruct):
    url: str
    """Where the browser is to go: it leads on to the provider."""


class SsoTokenPayload(SigningIn):
    code: Credential
    """From the fragment of the address that the browser came back to."""
    code_verifier: Verifier


class SsoChanged(Payload):
    """Of the event: which fields have another value now."""

    fields: list[
        Literal[
            "name",
            "issuer",
            "client_id",
            "client_secret",
            "scopes",
            "domains",
            "is_enabled",
            "is_enforced",
            "provisions_users",
            "owners_allowed",
            "default_roles",
            "role_claim",
            "role_mapping",
        ]
    ]


class SsoLinked(Payload):
    """Of the event: whose identity it is."""

    user_id: UUID


class SsoIdentityCopy(BaseStruct):
    """In the copy of a person's data: who they are at a provider."""

    id: UUID
    connection_id: UUID
    subject: str
    last_login_at: datetime | None
    created_at: datetime
