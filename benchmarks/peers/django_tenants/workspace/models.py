# mypy: ignore-errors
"""A tenant's fifteen tables: 49 indexes, 14 foreign keys, 11 unique constraints."""

from __future__ import annotations

import uuid

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Record(models.Model):
    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        abstract = True


class User(Record):
    email = models.CharField(max_length=254, unique=True)
    hashed_password = models.TextField(null=True)
    name = models.CharField(max_length=100, null=True)
    avatar_url = models.CharField(max_length=500, null=True)
    is_active = models.BooleanField(default=True)
    is_superuser = models.BooleanField(default=False)
    is_verified = models.BooleanField(default=False)
    verified_at = models.DateTimeField(null=True)
    joined_at = models.DateTimeField(auto_now_add=True)
    last_login_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "user_account"
        indexes = [models.Index(fields=["email", "is_active"], name="ix_user_email_is_active")]


class Role(Record):
    slug = models.CharField(max_length=63, unique=True)
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=500, null=True)
    is_builtin = models.BooleanField(default=False)
    permissions = ArrayField(models.TextField(), default=list)

    class Meta:
        db_table = "role"


class UserRole(Record):
    user = models.ForeignKey(User, models.CASCADE, related_name="grants")
    role = models.ForeignKey(Role, models.RESTRICT)

    class Meta:
        db_table = "user_role"
        constraints = [models.UniqueConstraint(fields=["user", "role"], name="uq_user_role")]


class Tag(Record):
    slug = models.CharField(max_length=63, unique=True)
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=500, null=True)

    class Meta:
        db_table = "tag"


class Team(Record):
    slug = models.CharField(max_length=63, unique=True)
    name = models.CharField(max_length=100)
    description = models.CharField(max_length=500, null=True)
    is_active = models.BooleanField(default=True)

    class Meta:
        db_table = "team"


class TeamTag(Record):
    team = models.ForeignKey(Team, models.CASCADE)
    tag = models.ForeignKey(Tag, models.CASCADE)

    class Meta:
        db_table = "team_tag"
        constraints = [models.UniqueConstraint(fields=["team", "tag"], name="uq_team_tag")]


class TeamMember(Record):
    team = models.ForeignKey(Team, models.CASCADE)
    user = models.ForeignKey(User, models.CASCADE)
    role = models.CharField(max_length=20)

    class Meta:
        db_table = "team_member"
        constraints = [models.UniqueConstraint(fields=["team", "user"], name="uq_team_member")]


class TeamInvitation(Record):
    team = models.ForeignKey(Team, models.CASCADE)
    invited_by = models.ForeignKey(User, models.CASCADE)
    digest = models.BinaryField(unique=True)
    expires_at = models.DateTimeField()
    accepted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "team_invitation"


class RefreshToken(Record):
    user = models.ForeignKey(User, models.CASCADE)
    digest = models.BinaryField(unique=True)
    user_agent = models.CharField(max_length=500, null=True)
    expires_at = models.DateTimeField()
    last_used_at = models.DateTimeField()
    revoked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "refresh_token"
        indexes = [models.Index(fields=["expires_at"], name="ix_refresh_token_expires_at")]


class EmailToken(Record):
    user = models.ForeignKey(User, models.CASCADE)
    purpose = models.CharField(max_length=20)
    digest = models.BinaryField(unique=True)
    expires_at = models.DateTimeField()
    used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "email_token"


class ApiKey(Record):
    user = models.ForeignKey(User, models.CASCADE)
    name = models.CharField(max_length=100)
    digest = models.BinaryField(unique=True)
    expires_at = models.DateTimeField(null=True)
    last_used_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "api_key"


class Notification(Record):
    user = models.ForeignKey(User, models.CASCADE)
    kind = models.CharField(max_length=50)
    body = models.TextField()
    read_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "notification"
        indexes = [models.Index(fields=["user", "read_at"], name="ix_notification_user_read_at")]


class WebhookEndpoint(Record):
    url = models.CharField(max_length=500)
    secret = models.BinaryField()
    events = ArrayField(models.TextField(), default=list)
    is_active = models.BooleanField(default=True)

    class Meta:
        db_table = "webhook_endpoint"


class WebhookDelivery(Record):
    endpoint = models.ForeignKey(WebhookEndpoint, models.CASCADE)
    event = models.CharField(max_length=50)
    body = models.JSONField()
    status = models.CharField(max_length=20)
    attempts = models.IntegerField(default=0)
    next_try_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "webhook_delivery"
        indexes = [models.Index(fields=["status", "next_try_at"], name="ix_webhook_delivery_due")]


class AuditEntry(Record):
    actor = models.ForeignKey(User, models.SET_NULL, null=True)
    action = models.CharField(max_length=100)
    target = models.CharField(max_length=200, null=True)
    details = models.JSONField(null=True)

    class Meta:
        db_table = "audit_entry"
        indexes = [models.Index(fields=["created_at"], name="ix_audit_entry_created_at")]
