"""What can be wrong with a second factor."""

from __future__ import annotations

from tenantry.kernel.errors import define_problem

__all__ = (
    "CHALLENGE_INVALID",
    "PASSKEY_INVALID",
    "SECOND_FACTOR_INVALID",
    "SECOND_FACTOR_MISSING",
    "SECOND_FACTOR_REQUIRED",
    "STEP_UP_FAILED",
    "TOO_MANY_PASSKEYS",
    "TOTP_ENROLLED",
    "TOTP_NOT_STARTED",
)

SECOND_FACTOR_REQUIRED = define_problem(
    "second-factor-required",
    401,
    "A second factor is needed",
    "The password is right. Send the `challenge` with one of `methods` to POST /api/auth/login/second-factor within "
    "`expiresIn` seconds; `publicKey` is for the browser where a passkey is among them.",
)
SECOND_FACTOR_INVALID = define_problem(
    "second-factor-invalid",
    401,
    "Wrong second factor",
    "The code, recovery code or passkey is not right, was used before, or is no longer good. `attemptsLeft` more may "
    "be tried with this challenge.",
)
CHALLENGE_INVALID = define_problem(
    "second-factor-challenge-invalid",
    401,
    "Log in again",
    "The challenge was used already, has expired, had too many wrong factors, or never was one.",
)
PASSKEY_INVALID = define_problem(
    "passkey-invalid",
    400,
    "Passkey not taken",
    "What the browser sent does not answer the challenge on one of the organization's pages, or the challenge was used "
    "already or has expired. Ask for new options.",
)
STEP_UP_FAILED = define_problem(
    "step-up-failed",
    403,
    "Not proved",
    "What was sent does not prove who the caller is. The session goes on as it was.",
)
TOTP_ENROLLED = define_problem(
    "totp-enrolled",
    409,
    "There is an authenticator app already",
    "An account has one. Remove it first, then set another one up.",
)
TOTP_NOT_STARTED = define_problem(
    "totp-not-started",
    409,
    "Nothing to confirm",
    "No authenticator app is being set up, or that has taken more than a day. Begin anew.",
)
TOO_MANY_PASSKEYS = define_problem(
    "too-many-passkeys",
    409,
    "Too many passkeys",
    "An account has so many passkeys at most (`allowed`). Delete one first.",
)
SECOND_FACTOR_MISSING = define_problem(
    "second-factor-missing",
    409,
    "There is no second factor",
    "Recovery codes stand in for a second factor, and the account has none. Set one up first.",
)
