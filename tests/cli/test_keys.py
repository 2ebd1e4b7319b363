from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from click.testing import Result

from tenantry.kernel.security import AUDIENCE_PLATFORM, Keyring, Tokens, UnknownSealingKeyError, Vault
from tenantry.kernel.settings import Settings
from tests.cli import support

OWNER = UUID("0198c7a1-0000-7000-8000-000000000001")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


@pytest.fixture
def ring(home: Path) -> Keyring:
    return Keyring.open(home / "keyring.json", retain=Settings().keyring_retain)


@pytest.fixture
def vault(home: Path, ring: Keyring) -> Vault:
    made = Vault(home / "vault.json", create=True)
    made.open()
    return made


@pytest.fixture
def run(home: Path) -> Run:
    return Run(home)


class Run:
    """`tenantry keys` in a deployment whose home is this folder."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def __call__(self, *arguments: str, answer: str | None = None, **env: str) -> Result:
        return support.run("keys", *arguments, env={"TENANTRY_HOME": str(self.home), **env}, stdin=answer)


def seal(vault: Vault) -> bytes:
    return vault.seal(b"hunter2", purpose="webhook-secret", owner=OWNER)


def unseal(vault: Vault, sealed: bytes) -> bytes:
    return vault.unseal(sealed, purpose="webhook-secret", owner=OWNER)


def key_texts(vault: Vault) -> list[str]:
    return [entry["key"] for entry in json.loads(vault.path.read_text())["keys"]]


def test_rotating_makes_a_new_key_and_old_tokens_stay_valid(run: Run, ring: Keyring) -> None:
    old = ring.signing_key().kid
    token = Tokens(ring, "tenantry").issue(audience=AUDIENCE_PLATFORM, sub=uuid4(), ttl=3600)[0]
    result = run("rotate", "--yes")
    assert result.exit_code == 0
    after = Keyring.open(ring.path, retain=ring.retain)
    assert after.signing_key().kid != old
    assert f"New signing key: {after.signing_key().kid}" in result.stdout
    assert f"Still verifies:  {old} until " in result.stdout
    Tokens(after, "tenantry").verify(token, AUDIENCE_PLATFORM)


def test_rotating_as_json_prints_nothing_else_on_stdout(run: Run, ring: Keyring) -> None:
    old = ring.signing_key().kid
    result = run("rotate", "--json", answer="y\n")
    assert result.exit_code == 0
    assert f"Replace the signing key {old}" in result.stderr
    answer = json.loads(result.stdout)
    assert (answer["use"], answer["retiresAt"]) == ("signs", None)
    (retired,) = answer["retired"]
    assert (retired["kid"], retired["use"]) == (old, "verifies")
    assert retired["retiresAt"] > retired["createdAt"]


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_nothing_is_rotated_without_a_yes(run: Run, ring: Keyring, answer: str) -> None:
    before = ring.path.read_bytes()
    result = run("rotate", answer=answer)
    assert result.exit_code == 1
    assert ring.path.read_bytes() == before


def test_the_list_names_keys_and_shows_none(run: Run, ring: Keyring) -> None:
    ring.rotate()
    secret = json.loads(ring.path.read_text())["keys"][0]["jwk"]["d"]
    result = run("list")
    assert result.exit_code == 0
    for info in ring.keys():  # noqa: SIM118 - a method of the ring, not of a dict
        assert info.kid in result.stdout
    rows = json.loads(run("list", "--json").stdout)
    assert [row["use"] for row in rows] == ["signs", "verifies"]
    assert secret not in result.output + run("list", "--json").output


@pytest.mark.parametrize("arguments", [["list"], ["rotate", "--yes"]])
def test_a_ring_that_is_not_there_is_an_error_and_is_not_made(run: Run, home: Path, arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 1
    assert f"Error: there is no keyring at {home / 'keyring.json'}" in result.stderr
    assert result.stdout == ""
    assert not home.exists()


@pytest.mark.parametrize("arguments", [["list"], ["rotate", "--yes"]])
def test_a_wrong_environment_exits_with_2(run: Run, arguments: list[str]) -> None:
    result = run(*arguments, TENANTRY_PORT="eighty")
    assert result.exit_code == 2
    assert "TENANTRY_PORT: got 'eighty'" in result.stderr


@pytest.mark.parametrize(
    ("command", "example"),
    [
        ("rotate", "tenantry keys rotate --yes --json"),
        ("list", "tenantry keys list --json"),
        ("create", "TENANTRY_VAULT_FILE=/keys/vault.json tenantry keys create"),
        ("remove", "tenantry keys remove 5f0c61c2a9d4e873 --force"),
    ],
)
def test_the_help_has_an_example(run: Run, command: str, example: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"Example: {example}" in result.stdout


def test_the_list_shows_sealing_keys_beside_signing_ones_and_no_secret(run: Run, ring: Keyring, vault: Vault) -> None:
    assert [row["kind"] for row in support.answer(run("list", "--json"))] == ["signing", "sealing"]
    vault.rotate()
    vault.rotate(delay=3600)
    rows = support.answer(run("list", "--json"))
    assert [(row["kind"], row["use"]) for row in rows] == [
        ("signing", "signs"),
        ("sealing", "unseals"),
        ("sealing", "seals"),
        ("sealing", "unseals"),
    ]
    assert rows[1]["sealsFrom"] > rows[1]["createdAt"]
    output = run("list").output
    assert all(info.key_id in output for info in vault.keys())  # noqa: SIM118 - a method of the vault, not of a dict
    assert not any(text in output + json.dumps(rows) for text in key_texts(vault))


def test_a_deployment_that_has_sealed_nothing_yet_has_no_sealing_keys_to_list(run: Run, ring: Keyring) -> None:
    assert {row["kind"] for row in support.answer(run("list", "--json"))} == {"signing"}
    assert not ring.path.with_name("vault.json").exists()


def test_a_vault_that_is_named_must_be_there(run: Run, ring: Keyring, tmp_path: Path) -> None:
    missing = tmp_path / "missing.json"
    for arguments in (["list"], ["rotate", "--sealing", "--yes"], ["remove", "0" * 16, "--force"]):
        text = support.refused(run(*arguments, TENANTRY_VAULT_FILE=str(missing)), 1)
        assert f"there is no vault at {missing}" in text
        assert "`tenantry keys create` makes one" in text
    assert not missing.exists()


def test_the_vault_is_beside_the_keyring_where_it_has_no_place_of_its_own(run: Run, tmp_path: Path) -> None:
    told = support.answer(run("create", "--json", TENANTRY_KEYRING=str(tmp_path / "keys" / "keyring.json")))
    assert (told["kind"], told["use"]) == ("sealing", "seals")
    (key,) = Vault(tmp_path / "keys" / "vault.json").keys()
    assert key.key_id == told["kid"]


def test_a_vault_is_made_once_and_never_replaced(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "secrets" / "vault.json"
    result = run("create", TENANTRY_VAULT_FILE=str(path))
    (key,) = Vault(path).keys()
    assert result.stdout == f"Sealing key {key.key_id} in {path}\n"
    before = path.read_bytes()
    assert "already" in support.refused(run("create", TENANTRY_VAULT_FILE=str(path)), 4)
    assert path.read_bytes() == before


def test_rotating_the_sealing_key_keeps_old_values_readable_and_the_signing_key_as_it_is(
    run: Run, ring: Keyring, vault: Vault
) -> None:
    signing, sealed, old = ring.path.read_bytes(), seal(vault), vault.keys()[0].key_id
    told = support.answer(run("rotate", "--sealing", "--yes", "--json"))
    assert (told["kind"], told["use"]) == ("sealing", "seals")
    assert [(row["kid"], row["use"]) for row in told["earlier"]] == [(old, "unseals")]
    after = Vault(vault.path)
    assert seal(after)[1:9].hex() == told["kid"] != old
    assert unseal(after, sealed) == b"hunter2"
    assert after.needs_resealing(sealed)
    assert ring.path.read_bytes() == signing


def test_a_sealing_key_can_begin_later(run: Run, vault: Vault) -> None:
    old = vault.keys()[0].key_id
    result = run("rotate", "--sealing", "--after", "600", "--yes")
    assert result.exit_code == 0
    after = Vault(vault.path)
    new, _ = after.keys()
    assert f"New sealing key: {new.key_id}, which seals from " in result.stdout
    assert f"Still seals:   {old}" in result.stdout
    assert new.seals_from == new.created_at + 600
    assert seal(after)[1:9].hex() == old


def test_a_time_to_begin_is_for_sealing_keys_alone(run: Run, ring: Keyring) -> None:
    before = ring.path.read_bytes()
    assert "give --sealing" in support.refused(run("rotate", "--after", "600", "--yes"), 2)
    assert run("rotate", "--sealing", "--after", "-1", "--yes").exit_code == 2
    assert ring.path.read_bytes() == before


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_no_sealing_key_is_made_without_a_yes(run: Run, vault: Vault, answer: str) -> None:
    before = vault.path.read_bytes()
    assert run("rotate", "--sealing", answer=answer).exit_code == 1
    assert vault.path.read_bytes() == before


def test_a_sealing_key_is_removed_only_by_force_and_never_the_one_that_seals(run: Run, vault: Vault) -> None:
    sealed, old = seal(vault), vault.keys()[0].key_id
    assert f"{old} is the key that seals; rotate first" in support.refused(run("remove", old, "--force"), 4)
    new = vault.rotate().key_id
    before = vault.path.read_bytes()
    text = support.refused(run("remove", old), 2)
    assert f"whatever is still sealed by {old} could not be read any more" in text
    assert "no sealing key 0000000000000000" in support.refused(run("remove", "0" * 16, "--force"), 3)
    assert vault.path.read_bytes() == before

    told = support.answer(run("remove", old, "--force", "--json"))
    assert (told["kid"], told["use"]) == (old, "removed")
    after = Vault(vault.path)
    assert [info.key_id for info in after.keys()] == [new]  # noqa: SIM118 - a method of the vault, not of a dict
    with pytest.raises(UnknownSealingKeyError):
        unseal(after, sealed)


def test_a_keyring_is_made_once_for_those_who_get_copies_of_it(run: Run, home: Path) -> None:
    made = json.loads(run("create", "--signing", "--json").stdout)
    assert (made["kind"], made["use"]) == ("signing", "signs")
    ring = Keyring.open(home / "keyring.json", retain=Settings().keyring_retain, create=False)
    assert ring.signing_key().kid == made["kid"]
    again = run("create", "--signing")
    assert again.exit_code == 4
    assert "there is a keyring at" in again.stderr
    assert ring.signing_key().kid == made["kid"]
    assert not (home / "vault.json").exists()
