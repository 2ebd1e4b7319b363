"""Every setting of the service: read from the environment once, at start; refused as a whole if anything is wrong.

A variable is `TENANTRY_` and the field's name in capitals. Nothing else is read: no `.env` file, no configuration
file, so that what a container was given is what runs.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args
from urllib.parse import parse_qsl, urlencode, urlsplit

from annotated_types import Ge, Gt, Le
from pydantic import Field, SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

__all__ = ("PREFIX", "SettingDoc", "Settings", "SettingsError", "describe", "load_settings", "redact_url")

PREFIX = "TENANTRY_"

_KEYRING_LEEWAY = 60
"""Seconds that a retired key outlives the last token that it signed: room for the clocks of other verifiers."""

_FOREIGN = ("TENANTRY_POSTGRES_BIN", "TENANTRY_VALKEY_BIN")
_FOREIGN_PREFIX = "TENANTRY_TEST_"

# Kubernetes puts the address of every Service of the namespace into every container; for one that is called
# `tenantry` or `tenantry-api` these names begin like ours (kubernetes.io, "Accessing the Service": environment).
_SERVICE_LINK = re.compile(
    r"TENANTRY_(?:\w+_)?(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_SERVICE_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://", re.IGNORECASE)

_HOSTNAME_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://"
    r"(?:(?P<user>[^:@/?#\s]*)(?P<password>:[^@/?#\s]*)?@)?"
    r"(?P<hosts>(?:\[[0-9a-f:.%]+\]|[^:@/?#\s\[\],]*)(?::\d{1,5})?(?:,(?:\[[0-9a-f:.%]+\]|[^:@/?#\s\[\],]+)(?::\d{1,5})?)*)"
    r"(?P<path>/[^?#\s@]*)?(?:\?(?P<query>[^#\s]*))?",
    re.IGNORECASE,
)
_SECRET_PARAMETER = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)

_POSTGRES_FORM = "an address of the form postgresql://user:password@host:port/database"
_REDIS_FORM = "an address of the form redis://host:port/0, rediss://host:port/0 or unix:///path/to/socket"


class SettingsError(Exception):
    """The environment does not describe a service that may run. The text lists everything that is wrong.

    It never holds a secret: of an address the password is left out, of an unknown variable the value.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        count = len(self.problems)
        head = "1 setting is wrong:" if count == 1 else f"{count} settings are wrong:"
        super().__init__("\n".join([head, *(f"  {problem}" for problem in self.problems)]))


@dataclass(frozen=True, slots=True)
class SettingDoc:
    """One setting as it is shown to an operator. `default` and `value` are text, without secrets; None when unset."""

    name: str
    variable: str
    type: str
    default: str | None
    value: str | None
    description: str
    is_set: bool


def _seconds(default: float, *, most: float, description: str) -> Any:
    return Field(
        default,
        gt=0,
        le=most,
        allow_inf_nan=False,
        description=description,
        json_schema_extra={"unit": "seconds"},
    )


def _whole(default: int, *, least: int, most: int, description: str, unit: str = "") -> Any:
    return Field(default, ge=least, le=most, description=description, json_schema_extra={"unit": unit})


def _text(default: Any, *, expects: str, description: str) -> Any:
    return Field(default, description=description, json_schema_extra={"expects": expects})


class Settings(BaseSettings):
    """What the service runs with; frozen. Made by `load_settings`; `Settings(port=8001)` reads no environment.

    Times are in seconds, sizes in bytes unless a description says otherwise.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        validate_default=True,
        # A ValidationError prints what it was given, and that may be an address with a password.
        hide_input_in_errors=True,
    )

    # Where and how it runs
    home: Path = _text(
        Path(".tenantry"),
        expects="a folder",
        description="Folder for what this deployment keeps on disk: the keyring, and the embedded servers' data.",
    )
    host: str = _text("127.0.0.1", expects="a host name or an IP address", description="Address to listen on.")
    port: int = _whole(8000, least=1, most=65535, description="TCP port to listen on.")
    workers: int = _whole(1, least=1, most=256, description="Serving processes.", unit="processes")

    # PostgreSQL
    database_url: str | None = _text(
        None,
        expects=_POSTGRES_FORM,
        description="PostgreSQL for the serving processes, as the application's role; unset: the embedded server.",
    )
    database_owner_url: SecretStr | None = _text(
        None,
        expects=_POSTGRES_FORM,
        description="PostgreSQL as the owner of the schemas; for migrations and the provisioner alone.",
    )
    database_listen_url: str | None = _text(
        None,
        expects=_POSTGRES_FORM,
        description="Direct address for LISTEN, where database_url is a transaction pooler; unset: database_url.",
    )
    database_pool_size: int = _whole(
        15, least=1, most=1000, description="Connections each process keeps open.", unit="connections"
    )
    database_max_overflow: int = _whole(
        0,
        least=0,
        most=1000,
        description="Connections opened above the pool under load, each closed as soon as it is given back: a burst "
        "costs more than a larger pool.",
        unit="connections",
    )
    database_pool_timeout: float = _seconds(
        5.0, most=300, description="How long a request waits for a connection before it is answered 503."
    )
    database_connect_timeout: float = _seconds(
        5.0, most=300, description="How long opening a connection to PostgreSQL may take."
    )
    database_prepared_statements: bool = _text(
        True,
        expects="true or false",
        description="Keep prepared statements; false behind PgBouncer older than 1.21 in transaction mode.",
    )

    # Redis or Valkey
    redis_url: str | None = _text(None, expects=_REDIS_FORM, description="Redis or Valkey; unset: the embedded Valkey.")
    redis_timeout: float = _seconds(
        0.25, most=30, description="How long a call to Redis may take before the request goes on without it."
    )

    # Tokens and credentials
    token_issuer: str = _text(
        "tenantry",
        expects="a name or a URI without spaces, at most 255 characters",
        description="The `iss` claim of issued tokens (RFC 7519, section 4.1.1); others are refused.",
    )
    access_token_ttl: int = _whole(
        900, least=1, most=86_400, description="Lifetime of a tenant user's access token.", unit="seconds"
    )
    operator_token_ttl: int = _whole(
        3600, least=1, most=86_400, description="Lifetime of an operator's access token.", unit="seconds"
    )
    refresh_token_ttl: int = _whole(
        2_592_000,
        least=1,
        most=31_536_000,
        description="Lifetime of a refresh token; more than an access token's.",
        unit="seconds",
    )
    invitation_ttl: int = _whole(
        604_800, least=1, most=7_776_000, description="How long an invitation can be accepted.", unit="seconds"
    )
    keyring: Path | None = _text(
        None,
        expects="a file",
        description="File with the keys that sign tokens; unset: keyring.json in the home folder.",
    )

    # The edge
    base_domain: str | None = _text(
        None,
        expects="a host name such as app.example.com",
        description="Domain whose first label names the tenant: with app.example.com, acme.app.example.com is acme's.",
    )
    request_body_limit: int = _whole(
        1_048_576, least=1024, most=1_073_741_824, description="Largest request body; beyond it 413.", unit="bytes"
    )
    request_body_timeout: float = _seconds(
        10.0, most=600, description="How long a client may take to send a request's body; beyond it 408."
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = _text(
        (),
        expects="origins such as https://app.example.com, separated by commas, or * alone",
        description="Origins whose pages may call the API from a browser.",
    )

    # What one tenant's transaction may take
    statement_timeout: float = _seconds(5.0, most=600, description="Longest that one SQL statement may run.")
    lock_timeout: float = _seconds(
        2.0, most=600, description="Longest that a statement waits for a lock; less than statement_timeout."
    )
    idle_in_transaction_timeout: float = _seconds(
        10.0, most=3600, description="Longest that an open transaction may do nothing."
    )

    # The control plane
    registry_poll_interval: float = _seconds(
        0.5, most=60, description="How often each process asks for changed tenants; suspension takes at most this long."
    )
    registry_stale_after: float = _seconds(
        5.0, most=300, description="Age at which an unrefreshed registry stops answering; above registry_poll_interval."
    )
    provision_wait: float = _seconds(
        20.0, most=300, description="How long creating a tenant waits for it to be ready before it answers 202."
    )

    # Passwords
    password_min_length: int = _whole(
        8,
        least=8,
        most=64,
        description="Shortest password; NIST SP 800-63B-4 asks for 15 where it is the only factor.",
        unit="characters",
    )
    password_hash_time_cost: int = _whole(
        2, least=1, most=64, description="argon2id passes; OWASP: 2 with 19456 KiB, 1 with 47104 KiB.", unit="passes"
    )
    password_hash_memory_cost: int = _whole(
        19_456, least=7168, most=1_048_576, description="argon2id memory of one hash.", unit="KiB"
    )
    password_hash_parallelism: int = _whole(1, least=1, most=16, description="argon2id lanes.", unit="lanes")
    password_hash_concurrency: int = _whole(
        2,
        least=1,
        most=64,
        description="Passwords hashed at once by each process; each takes the memory above.",
        unit="threads",
    )
    login_failures: int = _whole(
        10, least=1, most=1000, description="Failed log-ins of one account, after which it is refused for a while."
    )
    login_window: int = _whole(300, least=1, most=86_400, description="How long failed log-ins count.", unit="seconds")

    # Logs
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="Least severe events that are logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or coloured text for people."
    )

    @property
    def keyring_path(self) -> Path:
        """The keyring's file, wherever it was put."""
        return self.keyring if self.keyring is not None else self.home / "keyring.json"

    @property
    def keyring_retain(self) -> int:
        """Seconds for which a retired key still verifies: the longest token's lifetime, and a leeway."""
        return max(self.access_token_ttl, self.operator_token_ttl) + _KEYRING_LEEWAY

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        # `load_settings` alone reads the environment: a test that builds Settings() is not changed by the shell it
        # runs in.
        return (init_settings,)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        for name in type(self).model_fields:
            value = getattr(self, name)
            yield name, _shown(name, value) if _is_address(name) else value

    @field_validator("home", "keyring")
    @classmethod
    def _expand_user(cls, path: Path | None) -> Path | None:
        return None if path is None else path.expanduser()

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if not (_is_ip(host) or _is_hostname(host.lower())):
            raise ValueError(_expected("host"))
        return host

    @field_validator("database_url", "database_listen_url")
    @classmethod
    def _check_database_url(cls, url: str | None, info: ValidationInfo) -> str | None:
        if url is None:
            return None
        url = _postgres_url(url)
        if info.field_name == "database_listen_url" and info.data.get("database_url", url) is None:
            raise ValueError("TENANTRY_DATABASE_URL to be set as well")
        return url

    @field_validator("database_owner_url")
    @classmethod
    def _check_owner_url(cls, secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if secret is None:
            return None
        url = _postgres_url(secret.get_secret_value())
        application = info.data.get("database_url", url)
        if application is None:
            # Alone it would start the embedded server for the application and migrate the real one.
            raise ValueError("TENANTRY_DATABASE_URL to be set as well")
        if "database_url" in info.data and urlsplit(application).username == urlsplit(url).username:
            raise ValueError("another user than TENANTRY_DATABASE_URL's: the application must not own the schemas")
        return SecretStr(url)

    @field_validator("redis_url")
    @classmethod
    def _check_redis_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        match = _ADDRESS.fullmatch(url)
        if match is None:
            raise ValueError(_REDIS_FORM)
        scheme, hosts, path = match["scheme"].lower(), match["hosts"], match["path"] or ""
        if scheme == "unix":
            valid = not hosts and len(path) > 1
        else:
            valid = scheme in {"redis", "rediss"} and bool(hosts) and "," not in hosts
            valid = valid and re.fullmatch(r"(?:/\d{0,5})?", path) is not None and _ports_valid(hosts)
        if not valid:
            raise ValueError(_REDIS_FORM)
        return scheme + url[len(scheme) :]

    @field_validator("token_issuer")
    @classmethod
    def _check_issuer(cls, issuer: str) -> str:
        if not 1 <= len(issuer) <= 255 or re.fullmatch(r"[!-~]+", issuer) is None:
            raise ValueError(_expected("token_issuer"))
        return issuer

    @field_validator("refresh_token_ttl")
    @classmethod
    def _check_refresh_ttl(cls, ttl: int, info: ValidationInfo) -> int:
        access = info.data.get("access_token_ttl")
        if access is not None and ttl <= access:
            raise ValueError(f"more than TENANTRY_ACCESS_TOKEN_TTL ({access})")
        return ttl

    @field_validator("base_domain")
    @classmethod
    def _check_base_domain(cls, domain: str | None) -> str | None:
        if domain is None:
            return None
        domain = domain.lower().removesuffix(".")
        # 253 octets are a name's limit (RFC 1035, section 2.3.4); the tenant's label and its dot take up to 64.
        if _is_ip(domain) or len(domain) > 253 - 64 or not _is_hostname(domain):
            raise ValueError(_expected("base_domain"))
        return domain

    @field_validator("cors_origins", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if origins == ("*",):
            return origins
        for origin in origins:
            match = _ADDRESS.fullmatch(origin)
            if (
                match is None
                or match["scheme"] not in {"http", "https"}
                or not match["hosts"]
                or match["user"] is not None
                or match["path"] is not None
                or match["query"] is not None
                or not _ports_valid(match["hosts"])
            ):
                raise ValueError(_expected("cors_origins"))
        return origins

    @field_validator("lock_timeout")
    @classmethod
    def _check_lock_timeout(cls, seconds: float, info: ValidationInfo) -> float:
        statement = info.data.get("statement_timeout")
        if statement is not None and seconds >= statement:
            # PostgreSQL counts the wait as part of the statement: the lock's own time-out would never fire.
            raise ValueError(f"less than TENANTRY_STATEMENT_TIMEOUT ({statement:g})")
        return seconds

    @field_validator("registry_stale_after")
    @classmethod
    def _check_stale_after(cls, seconds: float, info: ValidationInfo) -> float:
        poll = info.data.get("registry_poll_interval")
        if poll is not None and seconds <= poll:
            raise ValueError(f"more than TENANTRY_REGISTRY_POLL_INTERVAL ({poll:g})")
        return seconds

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value


class _Environment(EnvSettingsSource):
    """The variables of a given mapping instead of `os.environ`."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name.lower(): value for name, value in self._env.items()}


def load_settings(env: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `env` (default: the process's environment).

    An unknown variable of our prefix is an error, since a misspelt one would silently leave a default in force; so is
    an empty one, since it is what a missing secret looks like (cors_origins excepted, where it means none).

    Raises:
        SettingsError: something is wrong; its text lists all of it, without secrets.
    """
    env = os.environ if env is None else env
    variables = {_variable(name): name for name in Settings.model_fields}
    problems: dict[str, str] = {}
    given: dict[str, str] = {}
    for variable, value in sorted(env.items()):
        if not variable.upper().startswith(PREFIX):
            continue
        if variable not in variables:
            if not _is_foreign(variable, value):
                close = difflib.get_close_matches(variable.upper(), variables, n=1, cutoff=0.8)
                hint = f"; {close[0]} was meant?" if close else ""
                problems[variable] = f"{variable}: there is no such setting{hint}"
        elif not value.strip() and variables[variable] != "cors_origins":
            expected = _expected(variables[variable])
            problems[variable] = f"{variable}: is set but empty; expected {expected}, or leave it unset"
        else:
            given[variable] = value
    try:
        settings = Settings(**_Environment(given)())
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            name = str(detail["loc"][0])
            variable = _variable(name)
            if variable not in problems:
                problems[variable] = f"{variable}: {_got(name, given)}, expected {_reason(name, detail)}"
    else:
        if not problems:
            return settings
    # Raised outside the handler: as its context, the ValidationError would bring the input back into tracebacks.
    raise SettingsError(problems.values())


def describe(settings: Settings) -> list[SettingDoc]:
    """Document every setting, in the order of the fields, with the value that `settings` has, without secrets."""
    return [
        SettingDoc(
            name=name,
            variable=_variable(name),
            type=_expected(name),
            default=_shown(name, field.default),
            value=_shown(name, getattr(settings, name)),
            description=field.description or "",
            is_set=name in settings.model_fields_set,
        )
        for name, field in Settings.model_fields.items()
    ]


def redact_url(url: str) -> str:
    """Return `url` with its password, and any query parameter that sounds like a secret, as `***`.

    Text that does not read cleanly as an address is left out as a whole: where a password holds an unescaped `@` or
    `/`, nobody can tell where it ends.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None:
        return "(not shown)"
    user, password, query = match["user"], match["password"], match["query"]
    account = "" if user is None else f"{user}{':***' if password is not None else ''}@"
    shown = f"{match['scheme']}://{account}{match['hosts']}{match['path'] or ''}"
    if query:
        pairs = parse_qsl(query, keep_blank_values=True)
        shown += "?" + urlencode([(k, "***" if _SECRET_PARAMETER.search(k) else v) for k, v in pairs], safe="*/:")
    return shown


def _variable(name: str) -> str:
    return PREFIX + name.upper()


def _is_foreign(variable: str, value: str) -> bool:
    """Whether a variable with our prefix is somebody else's: our tests', the embedded servers', Kubernetes'."""
    if variable in _FOREIGN or variable.startswith(_FOREIGN_PREFIX):
        return True
    if _SERVICE_LINK.fullmatch(variable) is not None:
        return True
    # `TENANTRY_HTTP_PORT=80` is a mistake of ours, `TENANTRY_API_PORT=tcp://10.0.0.1:80` is Kubernetes.
    return variable.endswith("_PORT") and _SERVICE_ADDRESS.match(value) is not None


def _postgres_url(url: str) -> str:
    match = _ADDRESS.fullmatch(url)
    if match is None or match["scheme"].lower() not in {"postgresql", "postgres"}:
        raise ValueError(_POSTGRES_FORM)
    if not match["user"] or len(match["path"] or "") < 2 or not _ports_valid(match["hosts"]):
        raise ValueError(_POSTGRES_FORM)
    if not match["hosts"] and "host" not in dict(parse_qsl(match["query"] or "")):
        raise ValueError(_POSTGRES_FORM)
    return "postgresql" + url[len(match["scheme"]) :]


def _ports_valid(hosts: str) -> bool:
    ports = (re.search(r":(\d+)$", host) for host in hosts.split(","))
    return all(port is None or 1 <= int(port[1]) <= 65535 for port in ports)


def _is_ip(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _is_hostname(text: str) -> bool:
    """RFC 1123, section 2.1: labels of letters, digits and inner hyphens; not all numeric at the end."""
    labels = text.split(".")
    return len(text) <= 253 and all(map(_HOSTNAME_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def _expected(name: str) -> str:
    """What a setting takes, in words: `a whole number from 1 to 65535`."""
    field = Settings.model_fields[name]
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    if "expects" in extra:
        return str(extra["expects"])
    choices = get_args(field.annotation)
    if choices:
        return "one of " + ", ".join(map(str, choices))
    noun = "a whole number" if field.annotation is int else "a number"
    unit = f" ({extra['unit']})" if extra.get("unit") else ""
    return f"{noun} {_bounds(field)}{unit}"


def _bounds(field: FieldInfo) -> str:
    least = next((bound.ge for bound in field.metadata if isinstance(bound, Ge)), None)
    above = next((bound.gt for bound in field.metadata if isinstance(bound, Gt)), None)
    most = next(bound.le for bound in field.metadata if isinstance(bound, Le))
    return f"above {above} and up to {most}" if least is None else f"from {least} to {most}"


def _got(name: str, given: Mapping[str, str]) -> str:
    value = given.get(_variable(name))
    if value is None:
        return f"is {_shown(name, Settings.model_fields[name].default)} by default"
    if _is_address(name) or "://" in value or "@" in value:
        text = redact_url(value)
        if name == "port" and _SERVICE_ADDRESS.match(value):
            text += " (from Kubernetes: set enableServiceLinks: false in the pod's spec)"
    else:
        text = ascii(value if len(value) <= 80 else value[:80] + "…")
    return f"got {text}"


def _reason(name: str, detail: Mapping[str, Any]) -> str:
    cause = detail.get("ctx", {}).get("error") if detail["type"] == "value_error" else None
    return str(cause) if cause is not None else _expected(name)


def _is_address(name: str) -> bool:
    return name.endswith("_url")


def _shown(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if _is_address(name):
        return redact_url(str(value))
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:g}" if isinstance(value, float) else str(value)
