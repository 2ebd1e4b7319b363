# mypy: ignore-errors
"""The fifteen tables."""

import uuid

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="Role",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("slug", models.CharField(max_length=63, unique=True)),
                ("name", models.CharField(max_length=100)),
                ("description", models.CharField(max_length=500, null=True)),
                ("is_builtin", models.BooleanField(default=False)),
                (
                    "permissions",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), default=list, size=None),
                ),
            ],
            options={
                "db_table": "role",
            },
        ),
        migrations.CreateModel(
            name="Tag",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("slug", models.CharField(max_length=63, unique=True)),
                ("name", models.CharField(max_length=100)),
                ("description", models.CharField(max_length=500, null=True)),
            ],
            options={
                "db_table": "tag",
            },
        ),
        migrations.CreateModel(
            name="Team",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("slug", models.CharField(max_length=63, unique=True)),
                ("name", models.CharField(max_length=100)),
                ("description", models.CharField(max_length=500, null=True)),
                ("is_active", models.BooleanField(default=True)),
            ],
            options={
                "db_table": "team",
            },
        ),
        migrations.CreateModel(
            name="WebhookEndpoint",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("url", models.CharField(max_length=500)),
                ("secret", models.BinaryField()),
                (
                    "events",
                    django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), default=list, size=None),
                ),
                ("is_active", models.BooleanField(default=True)),
            ],
            options={
                "db_table": "webhook_endpoint",
            },
        ),
        migrations.CreateModel(
            name="User",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("email", models.CharField(max_length=254, unique=True)),
                ("hashed_password", models.TextField(null=True)),
                ("name", models.CharField(max_length=100, null=True)),
                ("avatar_url", models.CharField(max_length=500, null=True)),
                ("is_active", models.BooleanField(default=True)),
                ("is_superuser", models.BooleanField(default=False)),
                ("is_verified", models.BooleanField(default=False)),
                ("verified_at", models.DateTimeField(null=True)),
                ("joined_at", models.DateTimeField(auto_now_add=True)),
                ("last_login_at", models.DateTimeField(null=True)),
            ],
            options={
                "db_table": "user_account",
                "indexes": [models.Index(fields=["email", "is_active"], name="ix_user_email_is_active")],
            },
        ),
        migrations.CreateModel(
            name="TeamInvitation",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("digest", models.BinaryField(unique=True)),
                ("expires_at", models.DateTimeField()),
                ("accepted_at", models.DateTimeField(null=True)),
                ("team", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.team")),
                ("invited_by", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.user")),
            ],
            options={
                "db_table": "team_invitation",
            },
        ),
        migrations.CreateModel(
            name="EmailToken",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("purpose", models.CharField(max_length=20)),
                ("digest", models.BinaryField(unique=True)),
                ("expires_at", models.DateTimeField()),
                ("used_at", models.DateTimeField(null=True)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.user")),
            ],
            options={
                "db_table": "email_token",
            },
        ),
        migrations.CreateModel(
            name="ApiKey",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("name", models.CharField(max_length=100)),
                ("digest", models.BinaryField(unique=True)),
                ("expires_at", models.DateTimeField(null=True)),
                ("last_used_at", models.DateTimeField(null=True)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.user")),
            ],
            options={
                "db_table": "api_key",
            },
        ),
        migrations.CreateModel(
            name="TeamTag",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("tag", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.tag")),
                ("team", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.team")),
            ],
            options={
                "db_table": "team_tag",
                "constraints": [models.UniqueConstraint(fields=("team", "tag"), name="uq_team_tag")],
            },
        ),
        migrations.CreateModel(
            name="TeamMember",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("role", models.CharField(max_length=20)),
                ("team", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.team")),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.user")),
            ],
            options={
                "db_table": "team_member",
                "constraints": [models.UniqueConstraint(fields=("team", "user"), name="uq_team_member")],
            },
        ),
        migrations.CreateModel(
            name="RefreshToken",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("digest", models.BinaryField(unique=True)),
                ("user_agent", models.CharField(max_length=500, null=True)),
                ("expires_at", models.DateTimeField()),
                ("last_used_at", models.DateTimeField()),
                ("revoked_at", models.DateTimeField(null=True)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.user")),
            ],
            options={
                "db_table": "refresh_token",
                "indexes": [models.Index(fields=["expires_at"], name="ix_refresh_token_expires_at")],
            },
        ),
        migrations.CreateModel(
            name="Notification",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("kind", models.CharField(max_length=50)),
                ("body", models.TextField()),
                ("read_at", models.DateTimeField(null=True)),
                ("user", models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.user")),
            ],
            options={
                "db_table": "notification",
                "indexes": [models.Index(fields=["user", "read_at"], name="ix_notification_user_read_at")],
            },
        ),
        migrations.CreateModel(
            name="AuditEntry",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("action", models.CharField(max_length=100)),
                ("target", models.CharField(max_length=200, null=True)),
                ("details", models.JSONField(null=True)),
                (
                    "actor",
                    models.ForeignKey(null=True, on_delete=django.db.models.deletion.SET_NULL, to="workspace.user"),
                ),
            ],
            options={
                "db_table": "audit_entry",
                "indexes": [models.Index(fields=["created_at"], name="ix_audit_entry_created_at")],
            },
        ),
        migrations.CreateModel(
            name="UserRole",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("role", models.ForeignKey(on_delete=django.db.models.deletion.RESTRICT, to="workspace.role")),
                (
                    "user",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="grants", to="workspace.user"
                    ),
                ),
            ],
            options={
                "db_table": "user_role",
                "constraints": [models.UniqueConstraint(fields=("user", "role"), name="uq_user_role")],
            },
        ),
        migrations.CreateModel(
            name="WebhookDelivery",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("created_at", models.DateTimeField(auto_now_add=True)),
                ("updated_at", models.DateTimeField(auto_now=True)),
                ("event", models.CharField(max_length=50)),
                ("body", models.JSONField()),
                ("status", models.CharField(max_length=20)),
                ("attempts", models.IntegerField(default=0)),
                ("next_try_at", models.DateTimeField(null=True)),
                (
                    "endpoint",
                    models.ForeignKey(on_delete=django.db.models.deletion.CASCADE, to="workspace.webhookendpoint"),
                ),
            ],
            options={
                "db_table": "webhook_delivery",
                "indexes": [models.Index(fields=["status", "next_try_at"], name="ix_webhook_delivery_due")],
            },
        ),
    ]
