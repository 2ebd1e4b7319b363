from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from tenantry.kernel.security import Vault, VaultError
from tenantry.kernel.settings import Settings
from tenantry.tenancy.wiring import open_vault
from tests.databases import Template
from tests.jobs.support import job_redis_url, open_worker
from tests.platform.support import open_api


async def test_what_the_api_seals_a_worker_of_the_deployment_opens(
    database_addresses: Template, tmp_path: Path
) -> None:
    owner = uuid4()
    async with (
        open_worker(database_addresses, job_redis_url(), tmp_path, ()) as worker,
        open_api(database_addresses, tmp_path) as api,
    ):
        vault: Vault = api.app.state.vault
        # Neither has needed it yet, and a worker makes none.
        with pytest.raises(VaultError, match="there is no vault at"):
            worker.vault.open()
        sealed = vault.seal(b"hunter2", purpose="test", owner=owner)
        assert worker.vault.unseal(sealed, purpose="test", owner=owner) == b"hunter2"
        vault.rotate()
        sealed = vault.seal(b"hunter3", purpose="test", owner=owner)
        assert worker.vault.unseal(sealed, purpose="test", owner=owner) == b"hunter3"
    assert (tmp_path / "vault.json").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("create", [True, False])
def test_a_vault_that_the_settings_name_must_be_there_at_the_start(tmp_path: Path, create: bool) -> None:
    # A volume that is not mounted: a key made in its place would be gone with the container.
    settings = Settings(home=tmp_path / "home", vault_file=tmp_path / "keys" / "vault.json")
    with pytest.raises(VaultError, match=r"there is no vault at .*vault\.json: TENANTRY_VAULT_FILE says where it is"):
        open_vault(settings, create=create)
    assert list(tmp_path.iterdir()) == []
    Vault.make(settings.vault_path)
    assert len(open_vault(settings, create=create).keys()) == 1


def test_a_folder_that_cannot_be_written_is_noticed_when_the_first_secret_is_to_be_sealed(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("no folder")
    vault = open_vault(Settings(keyring=tmp_path / "keys" / "keyring.json"), create=True)
    with pytest.raises(VaultError, match=r"the folder of the vault .* cannot be made"):
        vault.seal(b"hunter2", purpose="test", owner=uuid4())
