"""Settings of the serving processes: where they run, what they let in, what they log."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode

from tenantry.kernel.settings.addresses import HTTP_FORM, check_http_url, is_hostname, is_ip, is_origin
from tenantry.kernel.settings.fields import expected, seconds, text, whole

__all__ = ("Edge", "Logs", "Process", "Streams")


class Process(BaseModel):
    """Where and how it runs."""

    home: Path = text(
        Path(".tenantry"),
        expects="a folder",
        description="Folder for what this deployment keeps on disk: keyring, vault, and the embedded servers' data.",
    )
    host: str = text("127.0.0.1", expects="a host name or an IP address", description="Address to listen on.")
    port: int = whole(8000, least=1, most=65535, description="TCP port to listen on.")
    workers: int = whole(1, least=1, most=256, description="Serving processes.", unit="processes")

    @field_validator("home")
    @classmethod
    def _expand_home(cls, path: Path) -> Path:
        return path.expanduser()

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        if not (is_ip(host) or is_hostname(host.lower())):
            raise ValueError(expected(cls.model_fields["host"]))
        return host


class Edge(BaseModel):
    """What comes in from the network."""

    base_domain: str | None = text(
        None,
        expects="a host name such as app.example.com",
        description="Domain whose first label names the tenant: with app.example.com, acme.app.example.com is acme's.",
    )
    api_url: str | None = text(
        None,
        expects=HTTP_FORM,
        description="Where browsers reach this API; needed for single sign-on, whose redirect URI is "
        "/api/auth/sso/callback below it.",
    )
    request_body_limit: int = whole(
        1_048_576, least=1024, most=1_073_741_824, description="Largest request body; beyond it 413.", unit="bytes"
    )
    request_body_timeout: float = seconds(
        10.0, most=600, description="How long a client may take to send a request's body; beyond it 408."
    )
    response_write_timeout: float = seconds(
        30.0,
        most=600,
        description="How long a client may take nothing of an answer that is sent in pieces, before it is cut off.",
    )
    serve_drain: int = whole(
        5,
        least=0,
        most=600,
        unit="seconds",
        description="How long an API process that is told to end goes on serving, and ends each connection with its "
        "next answer, so that whoever sends requests has turned away before it is gone.",
    )
    idempotency_ttl: float = seconds(
        86_400.0,
        most=2_592_000,
        description="How long an answer is kept for whoever repeats its request with the same Idempotency-Key.",
    )
    cors_origins: Annotated[tuple[str, ...], NoDecode] = text(
        (),
        expects="origins such as https://app.example.com, separated by commas, or * alone",
        description="Origins whose pages may call the API from a browser.",
    )

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = text(
        (),
        expects="networks such as 10.0.0.0/8 or 127.0.0.1/32, separated by commas",
        description="Networks of the proxies in front, whose X-Forwarded-For says where a request comes from. From "
        "elsewhere that header is not read.",
    )

    @field_validator("base_domain")
    @classmethod
    def _check_base_domain(cls, domain: str | None) -> str | None:
        if domain is None:
            return None
        domain = domain.lower().removesuffix(".")
        # 253 octets are a name's limit (RFC 1035, section 2.3.4); the tenant's label and its dot take up to 64.
        if is_ip(domain) or len(domain) > 253 - 64 or not is_hostname(domain):
            raise ValueError(expected(cls.model_fields["base_domain"]))
        return domain

    @field_validator("api_url")
    @classmethod
    def _check_api_url(cls, url: str | None) -> str | None:
        return None if url is None else check_http_url(url).rstrip("/")

    @field_validator("cors_origins", "trusted_proxies", mode="before")
    @classmethod
    def _split_origins(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value

    @field_validator("cors_origins")
    @classmethod
    def _check_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        if origins != ("*",) and not all(map(is_origin, origins)):
            raise ValueError(expected(cls.model_fields["cors_origins"]))
        return origins

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        try:
            networks = tuple(map(ip_network, proxies))
        except ValueError:
            raise ValueError(expected(cls.model_fields["trusted_proxies"])) from None
        # Whoever trusts everybody lets each client say where it comes from, and so count its guesses for others.
        if any(network.prefixlen == 0 for network in networks):
            raise ValueError(expected(cls.model_fields["trusted_proxies"]))
        return proxies


class Streams(BaseModel):
    """Answers that go on: people's notifications as they come."""

    stream_limit: int = whole(
        1000,
        least=1,
        most=100_000,
        description="Streams of notifications that one serving process keeps open; beyond it 429.",
        unit="streams",
    )
    stream_limit_per_tenant: int = whole(
        250,
        least=1,
        most=100_000,
        description="Of which the people of one organization may have so many together; beyond it 429.",
        unit="streams",
    )
    stream_limit_per_user: int = whole(
        10,
        least=1,
        most=1000,
        description="Of which one user may have so many, for each window and device; beyond it 429.",
        unit="streams",
    )
    stream_lifetime: float = seconds(
        3600.0, most=86_400, description="How long one stays open; its client then comes back, to whatever process."
    )


class Logs(BaseModel):
    """What is logged, and how."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"] = Field(
        default="INFO", description="Least severe events that are logged."
    )
    log_format: Literal["json", "console"] = Field(
        default="json", description="One JSON object a line, or coloured text for people."
    )

    @field_validator("log_level", mode="before")
    @classmethod
    def _upper(cls, value: object) -> object:
        return value.upper() if isinstance(value, str) else value

    @field_validator("log_format", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value
