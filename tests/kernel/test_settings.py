from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tenantry.kernel.settings import PREFIX, Settings, SettingsError, describe, load_settings, redact_url
from tests.kernel.settings_support import load, problems

SECRET = "hunter2-s3cret"


def test_an_empty_environment_gives_the_defaults() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert (settings.host, settings.port, settings.database_url) == ("127.0.0.1", 8000, None)
    assert settings.keyring_path == Path(".tenantry/keyring.json")
    assert settings.vault_path == Path(".tenantry/vault.json")


def test_each_variable_is_the_fields_name_in_capitals() -> None:
    settings = load(
        HOME="/srv/tenantry",
        PORT="9000",
        DATABASE_PREPARED_STATEMENTS="false",
        REDIS_TIMEOUT="0.5",
        CORS_ORIGINS="https://a.example.com, https://b.example.com:8443",
        LOG_LEVEL="debug",
        LOG_FORMAT="CONSOLE",
        BASE_DOMAIN="App.Example.com.",
    )
    assert settings.keyring_path == Path("/srv/tenantry/keyring.json")
    assert settings.port == 9000
    assert settings.database_prepared_statements is False
    assert settings.redis_timeout == 0.5
    assert settings.cors_origins == ("https://a.example.com", "https://b.example.com:8443")
    assert (settings.log_level, settings.log_format) == ("DEBUG", "console")
    assert settings.base_domain == "app.example.com"


def test_the_vault_is_beside_the_keyring_unless_it_has_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert load(HOME="/srv/tenantry").vault_path == Path("/srv/tenantry/vault.json")
    assert load(HOME="/srv/tenantry", KEYRING="/keys/signing.json").vault_path == Path("/keys/vault.json")
    both = load(KEYRING="/keys/signing.json", VAULT_FILE="~/sealing.json")
    assert both.vault_path == Path("/home/ann/sealing.json")


def test_the_process_environment_is_read_by_load_settings_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("TENANTRY_PORT", "9001")
    assert load_settings().port == 9001
    assert Settings().port == 8000


def test_no_dotenv_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".env").write_text("TENANTRY_PORT=9002\n")
    monkeypatch.chdir(tmp_path)
    assert load_settings({}).port == 8000


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_settings({}).port = 1


def test_one_message_lists_everything_that_is_wrong() -> None:
    found = problems(PORT="eighty", WORKERS="0", LOG_LEVEL="loud", BASE_DOMAIN="not a host", REDIS_TIMEOUT="nan")
    assert found == (
        "TENANTRY_PORT: got 'eighty', expected a whole number from 1 to 65535",
        "TENANTRY_WORKERS: got '0', expected a whole number from 1 to 256 (processes)",
        "TENANTRY_REDIS_TIMEOUT: got 'nan', expected a number above 0 and up to 30 (seconds)",
        "TENANTRY_BASE_DOMAIN: got 'not a host', expected a host name such as app.example.com",
        "TENANTRY_LOG_LEVEL: got 'loud', expected one of DEBUG, INFO, WARNING, ERROR, CRITICAL",
    )
    assert str(SettingsError(found)).startswith("5 settings are wrong:\n  TENANTRY_PORT: got ")
    assert str(SettingsError(found[:1])).startswith("1 setting is wrong:\n")


def test_a_misspelt_variable_is_an_error_that_names_the_right_one() -> None:
    assert problems(PROT="9000") == ("TENANTRY_PROT: there is no such setting; TENANTRY_PORT was meant?",)
    assert problems(FROBNICATE=SECRET) == ("TENANTRY_FROBNICATE: there is no such setting",)


def test_a_variable_in_lower_case_is_an_error_rather_than_ignored() -> None:
    with pytest.raises(SettingsError, match="tenantry_port: there is no such setting; TENANTRY_PORT was meant"):
        load_settings({"tenantry_port": "9000"})


@pytest.mark.parametrize("name", ["TENANTRY_TEST_DATABASE_URL", "TENANTRY_POSTGRES_BIN", "TENANTRY_VALKEY_BIN"])
def test_variables_of_the_tests_and_the_embedded_servers_are_let_through(name: str) -> None:
    assert load_settings({name: "/x"}) == Settings()


def test_the_addresses_that_kubernetes_adds_for_a_service_are_let_through() -> None:
    service_links = {
        "TENANTRY_SERVICE_HOST": "10.0.0.1",
        "TENANTRY_SERVICE_PORT": "80",
        "TENANTRY_SERVICE_PORT_HTTP": "80",
        "TENANTRY_PORT_80_TCP": "tcp://10.0.0.1:80",
        "TENANTRY_PORT_80_TCP_PROTO": "tcp",
        "TENANTRY_PORT_80_TCP_PORT": "80",
        "TENANTRY_PORT_80_TCP_ADDR": "10.0.0.1",
        "TENANTRY_API_SERVICE_HOST": "10.0.0.2",
        "TENANTRY_API_PORT": "tcp://10.0.0.2:80",
    }
    assert load_settings(service_links) == Settings()
    assert problems(HTTP_PORT="80")[0].startswith("TENANTRY_HTTP_PORT: there is no such setting")
    assert "enableServiceLinks: false" in problems(PORT="tcp://10.0.0.1:80")[0]


def test_an_empty_variable_is_refused_since_a_missing_secret_looks_like_that() -> None:
    assert problems(DATABASE_URL="")[0].startswith("TENANTRY_DATABASE_URL: is set but empty; expected an address")
    assert load(CORS_ORIGINS="").cors_origins == ()


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("postgres://app:pw@db:5432/tenantry", "postgresql://app:pw@db:5432/tenantry"),
        ("POSTGRESQL://app@db/tenantry?sslmode=require", "postgresql://app@db/tenantry?sslmode=require"),
        ("postgresql://app:p:w@[::1]:5432/tenantry", "postgresql://app:p:w@[::1]:5432/tenantry"),
        ("postgresql://app@a:5432,b:5433/tenantry", "postgresql://app@a:5432,b:5433/tenantry"),
        ("postgresql://app@/tenantry?host=/run/postgresql", "postgresql://app@/tenantry?host=/run/postgresql"),
    ],
)
def test_a_database_address_is_stored_with_the_scheme_postgresql(given: str, stored: str) -> None:
    assert load(DATABASE_URL=given).database_url == stored


@pytest.mark.parametrize(
    "url",
    [
        "mysql://app:pw@db/tenantry",
        "postgresql+asyncpg://app:pw@db/tenantry",
        "postgresql://db/tenantry",
        "postgresql://app:pw@db",
        "postgresql://app:pw@db/",
        "postgresql://app:pw@db:99999/tenantry",
        "postgresql://app:pw@/tenantry",
        "postgresql://app:p@w@db/tenantry",
        "db",
    ],
)
def test_anything_but_a_whole_postgresql_address_is_refused(url: str) -> None:
    assert len(problems(DATABASE_URL=url)) == 1


@pytest.mark.parametrize(
    "url", ["redis://h:6379/0", "rediss://u:p@h", "unix:///run/valkey.sock", "redis://:p@[::1]:1/3"]
)
def test_redis_addresses_of_the_three_schemes_are_taken(url: str) -> None:
    assert load(REDIS_URL=url).redis_url == url


@pytest.mark.parametrize(
    "url", ["http://h:6379", "redis://", "unix://h", "unix:///", "redis://h/zero", "redis://a,b/0"]
)
def test_other_redis_addresses_are_refused(url: str) -> None:
    assert "redis://host:port/0" in problems(REDIS_URL=url)[0]


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"REFRESH_TOKEN_TTL": "900"}, "expected more than TENANTRY_ACCESS_TOKEN_TTL (900)"),
        ({"ACCESS_TOKEN_TTL": "0"}, "TENANTRY_ACCESS_TOKEN_TTL: got '0', expected a whole number from 1 to 86400"),
        ({"OPERATOR_TOKEN_TTL": "-5"}, "TENANTRY_OPERATOR_TOKEN_TTL: got '-5'"),
        ({"LOCK_TIMEOUT": "5"}, "expected less than TENANTRY_STATEMENT_TIMEOUT (5)"),
        ({"STATEMENT_TIMEOUT": "1"}, "TENANTRY_LOCK_TIMEOUT: is 2 by default, expected less than"),
        ({"REGISTRY_POLL_INTERVAL": "6"}, "expected more than TENANTRY_REGISTRY_POLL_INTERVAL (6)"),
        ({"DATABASE_LISTEN_URL": "postgres://a@h/d"}, "expected TENANTRY_DATABASE_URL to be set as well"),
        ({"DATABASE_OWNER_URL": "postgres://a@h/d"}, "expected TENANTRY_DATABASE_URL to be set as well"),
        (
            {"DATABASE_URL": "postgres://a@h/d", "DATABASE_OWNER_URL": "postgres://a:x@h/d"},
            "the application must not own the schemas",
        ),
        ({"PASSWORD_HASH_MEMORY_COST": "19"}, "expected a whole number from 7168 to 1048576 (KiB)"),
        ({"PASSWORD_MIN_LENGTH": "4"}, "expected a whole number from 8 to 64 (characters)"),
        ({"BASE_DOMAIN": "10.0.0.1"}, "expected a host name"),
        ({"BASE_DOMAIN": "a" * 64 + ".com"}, "expected a host name"),
        ({"BASE_DOMAIN": ".".join(["a" * 60] * 4)}, "expected a host name"),
        ({"CORS_ORIGINS": "https://a.example.com/path"}, "expected origins such as"),
        ({"CORS_ORIGINS": "*,https://a.example.com"}, "expected origins such as"),
        ({"HOST": "not a host"}, "expected a host name or an IP address"),
        ({"TOKEN_ISSUER": "two words"}, "expected a name or a URI"),
    ],
)
def test_settings_that_do_not_fit_together_are_refused(variables: dict[str, str], message: str) -> None:
    (problem,) = problems(**variables)
    assert message in problem


@pytest.mark.parametrize(
    ("name", "least", "most", "words"),
    [
        ("WARM_POOL_SIZE", 0, 1000, "a whole number from 0 to 1000 (schemas)"),
        ("WARM_POOL_BATCH", 1, 100, "a whole number from 1 to 100 (schemas)"),
        ("DELETION_GRACE", 0, 315_360_000, "a whole number from 0 to 315360000 (seconds)"),
        ("EXPORT_TTL", 1, 31_536_000, "a whole number from 1 to 31536000 (seconds)"),
        ("IMPORT_SIZE_LIMIT", 1024, 16 * 2**40, "a whole number from 1024 to 17592186044416 (bytes)"),
        ("ROLLOUT_CONCURRENCY", 1, 64, "a whole number from 1 to 64 (tenants)"),
        ("ROLLOUT_ATTEMPTS", 1, 20, "a whole number from 1 to 20 (attempts)"),
    ],
)
def test_a_whole_number_is_taken_up_to_its_bounds(name: str, least: int, most: int, words: str) -> None:
    for value in (least, most):
        assert getattr(load(**{name: str(value)}), name.lower()) == value
    for value in (least - 1, most + 1):
        assert problems(**{name: str(value)}) == (f"TENANTRY_{name}: got '{value}', expected {words}",)


@pytest.mark.parametrize(("name", "most"), [("WARM_POOL_INTERVAL", 3600), ("ROLLOUT_LOCK_TIMEOUT", 600)])
def test_a_time_is_above_zero_and_bounded(name: str, most: int) -> None:
    assert getattr(load(**{name: "0.05"}), name.lower()) == 0.05
    for value in ("0", str(most + 1), "inf"):
        (problem,) = problems(**{name: value})
        assert problem == f"TENANTRY_{name}: got '{value}', expected a number above 0 and up to {most} (seconds)"


def test_a_deleted_tenant_can_be_undeleted_for_thirty_days_and_an_export_fetched_for_seven() -> None:
    settings = load_settings({})
    assert (settings.deletion_grace, settings.export_ttl) == (30 * 86_400, 7 * 86_400)
    assert settings.import_size_limit == 10 * 2**30


def test_retired_keys_stay_for_the_longest_token() -> None:
    settings = load(ACCESS_TOKEN_TTL="900", OPERATOR_TOKEN_TTL="7200")
    assert settings.keyring_retain >= 7200 + 5


WITH_SECRETS = {
    "DATABASE_URL": f"postgresql://app:{SECRET}@db/tenantry?password={SECRET}",
    "DATABASE_OWNER_URL": f"postgresql://owner:{SECRET}@db/tenantry",
    "DATABASE_LISTEN_URL": f"postgresql://app:{SECRET}@direct/tenantry",
    "REDIS_URL": f"redis://:{SECRET}@cache:6379/0",
}


def test_secrets_are_never_shown() -> None:
    settings = load(**WITH_SECRETS)
    shown = repr(settings) + str(settings) + repr(describe(settings))
    assert SECRET not in shown
    assert "postgresql://owner:***@db/tenantry" in shown
    assert settings.database_owner_url is not None
    assert settings.database_owner_url.get_secret_value() == f"postgresql://owner:{SECRET}@db/tenantry"


@pytest.mark.parametrize("name", WITH_SECRETS)
@pytest.mark.parametrize("broken", ["{}x://u:S@h/d", "u:S@h", "postgresql://u:S@S@h/d", "postgresql://u:S/S@h/d", "S"])
def test_a_wrong_address_is_reported_without_its_secret(name: str, broken: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**{name: broken.replace("S", SECRET)})
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_an_address_put_into_another_variable_does_not_leak_either() -> None:
    assert SECRET not in problems(PORT=f"postgresql://u:{SECRET}@h/d")[0]
    with pytest.raises(ValidationError) as caught:
        Settings(redis_url=f"http://u:{SECRET}@h/d")
    assert SECRET not in str(caught.value)


@settings(deadline=None)
@given(
    password=st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20).map(
        lambda s: "Z9" + s
    ),
    form=st.sampled_from(
        ["postgresql://user:{}@host:5432/db", "redis://:{}@h", "x://h/db?password={}", "x://u:{}", "u:{}@h", "{}"]
    ),
)
def test_no_password_survives_in_a_shown_address(password: str, form: str) -> None:
    assert password not in redact_url(form.format(password))


def test_every_setting_is_documented() -> None:
    docs = describe(load(PORT="9000"))
    assert [doc.name for doc in docs] == list(Settings.model_fields)
    for doc in docs:
        assert doc.variable == PREFIX + doc.name.upper()
        assert doc.description.endswith(".")
        assert doc.type
    port = next(doc for doc in docs if doc.name == "port")
    assert (port.default, port.value, port.is_set) == ("8000", "9000", True)
    assert not next(doc for doc in docs if doc.name == "host").is_set


def test_every_number_has_bounds() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (int, float):
            assert len(problems(**{name.upper(): "1e300"})) == 1, name
            assert len(problems(**{name.upper(): "-1"})) == 1, name


def test_a_serving_process_has_its_share_of_the_connections_less_those_that_it_keeps_for_itself() -> None:
    assert load().database_pool_size == 15
    assert load(DATABASE_CONNECTIONS="64", WORKERS="4").database_pool_size == 15
    replica = {"DATABASE_URL": "postgresql://a@b/c", "DATABASE_REPLICA_URL": "postgresql://a@r/c"}
    assert load(DATABASE_CONNECTIONS="64", WORKERS="4", **replica).database_pool_size == 14


def test_every_serving_process_needs_a_connection_for_its_requests() -> None:
    assert problems(WORKERS="16", DATABASE_CONNECTIONS="31") == (
        "TENANTRY_DATABASE_CONNECTIONS: got '31', expected at least 32: 2 for each of 16 serving processes",
    )
    assert problems(WORKERS="16") == (
        "TENANTRY_DATABASE_CONNECTIONS: is 16 by default, expected at least 32: 2 for each of 16 serving processes",
    )
    assert load(WORKERS="16", DATABASE_CONNECTIONS="32").database_pool_size == 1


def test_a_replica_needs_a_primary() -> None:
    (problem,) = problems(DATABASE_REPLICA_URL="postgresql://a@r/c")
    assert problem.startswith("TENANTRY_DATABASE_REPLICA_URL")
    assert "TENANTRY_DATABASE_URL to be set as well" in problem
