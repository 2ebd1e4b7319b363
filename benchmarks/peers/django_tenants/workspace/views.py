# mypy: ignore-errors
"""One team with its tags, in one statement and without model instances: the quickest way that the ORM has."""

from __future__ import annotations

from django.contrib.postgres.expressions import ArraySubquery
from django.db.models import OuterRef
from django.db.models.functions import JSONObject, Now
from django.http import JsonResponse

from workspace.models import RefreshToken, Role, Tag, Team
from workspace.tokens import InvalidToken, verify

_tags = (
    Tag.objects.filter(teamtag__team=OuterRef("pk"))
    .order_by("name")
    .values(json=JSONObject(id="id", slug="slug", name="name"))
)
_teams = Team.objects.annotate(tags=ArraySubquery(_tags)).values(
    "id", "slug", "name", "description", "is_active", "created_at", "updated_at", "tags"
)
_sessions = RefreshToken.objects.annotate(
    grants=ArraySubquery(Role.objects.filter(userrole__user=OuterRef("user")).values("permissions"))
).values("user__is_superuser", "grants")


def team(request, team_id):
    """Whoever has a valid token of this tenant may read: no look at the session, none at permissions."""
    if _claims(request) is None:
        return JsonResponse({"title": "Not authenticated"}, status=401)
    return _answer(team_id)


def team_of_live_session(request, team_id):
    """What Tenantry does for each request: the session is live, the account active, and a role permits it."""
    claims = _claims(request)
    if claims is None:
        return JsonResponse({"title": "Not authenticated"}, status=401)
    session = _sessions.filter(
        id=claims["sid"],
        user_id=claims["sub"],
        revoked_at=None,
        expires_at__gt=Now(),
        user__is_active=True,
    ).first()
    if session is None:
        return JsonResponse({"title": "Not authenticated"}, status=401)
    if not session["user__is_superuser"] and not any("teams:read" in grants for grants in session["grants"]):
        return JsonResponse({"title": "Not permitted"}, status=403)
    return _answer(team_id)


def _claims(request):
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme != "Bearer":
        return None
    try:
        claims = verify(token)
    except InvalidToken:
        return None
    return claims if claims["tid"] == request.tenant.schema_name else None


def _answer(team_id):
    row = _teams.filter(id=team_id).first()
    if row is None:
        return JsonResponse({"title": "There is no such team"}, status=404)
    return JsonResponse(
        {
            "id": row["id"],
            "slug": row["slug"],
            "name": row["name"],
            "description": row["description"],
            "isActive": row["is_active"],
            "tags": row["tags"],
            "createdAt": row["created_at"],
            "updatedAt": row["updated_at"],
        }
    )
