"""Codes of authenticator apps: which step's they are, and that none is taken twice."""

from __future__ import annotations

import base64

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tenantry.domain.identity.factors.totp import DRIFT, STEP, enrolment, find_step, new_secret, step_at

SECRETS = st.binary(min_size=20, max_size=20)
MOMENTS = st.floats(min_value=0, max_value=20_000_000_000, allow_nan=False)


def code_of(secret: bytes, step: int) -> str:
    return pyotp.TOTP(base64.b32encode(secret).decode()).generate_otp(step)


@pytest.mark.parametrize(
    ("moment", "code"),
    [(59, "287082"), (1_111_111_109, "081804"), (1_234_567_890, "005924"), (20_000_000_000, "353130")],
)
def test_the_codes_are_those_of_the_rfc(moment: int, code: str) -> None:
    """RFC 6238, appendix B, the last six of its eight digits."""
    assert find_step(b"12345678901234567890", code, now=moment, last=None) == moment // 30


@given(SECRETS, MOMENTS, st.integers(min_value=-5, max_value=5))
def test_a_code_is_taken_within_the_drift_and_no_further(secret: bytes, now: float, away: int) -> None:
    step = step_at(now) + away
    if step < 0:
        return
    found = find_step(secret, code_of(secret, step), now=now, last=None)
    if abs(away) <= DRIFT:
        assert found is not None
    if found is not None:
        # The step whose code it is, which two steps may share.
        assert abs(found - step_at(now)) <= DRIFT
        assert code_of(secret, found) == code_of(secret, step)


@given(SECRETS, MOMENTS, st.lists(st.tuples(st.integers(-2, 2), st.floats(0, 45)), min_size=1, max_size=8))
def test_the_steps_that_are_taken_only_ever_go_up(secret: bytes, start: float, tries: list[tuple[int, float]]) -> None:
    """Whatever is tried while time goes on: a step's code is taken once, and never after a later one's."""
    last, now = None, start
    for away, later in tries:
        now += later
        step = step_at(now) + away
        if step < 0:
            continue
        found = find_step(secret, code_of(secret, step), now=now, last=last)
        if found is not None:
            assert last is None or found > last
            assert find_step(secret, code_of(secret, found), now=now, last=found) is None
            last = found
        elif abs(away) <= DRIFT:
            assert last is not None
            assert step <= last


@given(SECRETS, MOMENTS, st.text(alphabet="0123456789", min_size=6, max_size=6))
def test_what_is_taken_is_a_code_of_its_step(secret: bytes, now: float, guess: str) -> None:
    found = find_step(secret, guess, now=now, last=None)
    near = [step for step in range(step_at(now) - DRIFT, step_at(now) + DRIFT + 1) if step >= 0]
    matching = [step for step in near if code_of(secret, step) == guess]
    assert found == (max(matching) if matching else None)


def test_of_two_steps_with_one_code_both_are_used_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyotp.TOTP, "generate_otp", lambda _, __: "123456")
    now = 1000.0 * STEP
    assert find_step(bytes(20), "123456", now=now, last=None) == 1001
    assert find_step(bytes(20), "123456", now=now, last=1001) is None


def test_an_app_learns_the_secret_by_its_uri() -> None:
    secret = new_secret()
    told = enrolment(secret, account="ann@acme.example", issuer="Acme: Paints & Co")
    parsed = pyotp.parse_uri(told.uri)
    assert (parsed.name, parsed.issuer, parsed.secret) == ("ann@acme.example", "Acme  Paints & Co", told.secret)
    assert base64.b32decode(told.secret) == secret
    assert told.svg.startswith("data:image/svg+xml")
    assert told.png.startswith("data:image/png;base64,iVBOR")
