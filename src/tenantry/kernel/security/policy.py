"""What a new password must be: NIST SP 800-63B-4 §3.1.1, which asks for length and forbids rules of composition."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tenantry.kernel.errors import ValidationFailedException

if TYPE_CHECKING:
    from tenantry.kernel.settings import Settings

__all__ = ("check_new_password",)


def check_new_password(
    settings: Settings, password: str, *, email: str, name: str | None = None, field: str = "password"
) -> None:
    """Refuse a password that is too short, or that is the person's own address or name.

    Raises:
        ValidationFailedException: naming `field`, and what was expected.
    """
    if len(password) < settings.password_min_length:
        raise ValidationFailedException.of(field, f"Expected at least {settings.password_min_length} characters.")
    plain = password.casefold()
    if plain in {email.casefold(), email.partition("@")[0].casefold(), (name or "").casefold()}:
        raise ValidationFailedException.of(field, "Expected something other than your own address or name.")
