from __future__ import annotations

import hashlib
from uuid import UUID, uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenantry.kernel.security import INVITATION, REFRESH, Credential, InvalidCredential, digest_matches

TENANT = UUID("0192f1d0-1111-7222-8333-444455556666")


def test_a_credential_names_its_kind_and_its_tenant_and_is_stored_as_a_digest() -> None:
    text, digest = Credential.new(REFRESH, TENANT)
    kind, tenant, secret = text.split("_")
    assert (kind, tenant, len(secret)) == ("rt", TENANT.hex, 64)
    assert digest == hashlib.sha256(text.encode()).digest()
    parsed = Credential.parse(text, REFRESH)
    assert parsed.tenant_id == TENANT
    assert digest_matches(parsed.digest, digest)


def test_no_two_credentials_are_alike() -> None:
    assert len({Credential.new(INVITATION, TENANT) for _ in range(100)}) == 100


def test_a_credential_is_worth_nothing_as_another_kind_or_for_another_tenant() -> None:
    text, digest = Credential.new(REFRESH, TENANT)
    with pytest.raises(InvalidCredential):
        Credential.parse(text, INVITATION)
    secret = text.rsplit("_", 1)[1]
    elsewhere = Credential.parse(f"{REFRESH}_{uuid4().hex}_{secret}", REFRESH)
    renamed = Credential.parse(f"{INVITATION}_{TENANT.hex}_{secret}", INVITATION)
    assert not digest_matches(elsewhere.digest, digest)
    assert not digest_matches(renamed.digest, digest)


@settings(deadline=None)
@given(place=st.integers(0, 99), character=st.characters())
def test_a_changed_credential_never_matches(place: int, character: str) -> None:
    text, digest = Credential.new(REFRESH, TENANT)
    changed = text[:place] + character + text[place + 1 :]
    if changed == text:
        return
    try:
        parsed = Credential.parse(changed, REFRESH)
    except InvalidCredential:
        return
    assert not digest_matches(parsed.digest, digest)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rt",
        "rt__",
        f"rt_{TENANT.hex}_" + "a" * 63,
        f"rt_{TENANT.hex}_" + "a" * 65,
        f"rt_{TENANT.hex}_" + "A" * 64,
        f"rt_{TENANT.hex}_" + "a" * 64 + "\n",
        f" rt_{TENANT.hex}_" + "a" * 64,
        f"rt_{TENANT}_" + "a" * 64,
        f"rt_{TENANT.hex}_" + "\u0661" * 64,
    ],
)
def test_text_of_another_form_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(InvalidCredential) as caught:
        Credential.parse(text, REFRESH)
    assert str(caught.value) == "not a valid credential"


@pytest.mark.parametrize("kind", ["", "r", "RT", "a_b", "toolongkind"])
def test_a_kind_that_could_not_be_read_back_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="a kind is"):
        Credential.new(kind, TENANT)
