"""Settings of what is seen of a running deployment: metrics, traces, and what the database is told of who asks."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, SecretStr, ValidationInfo, field_validator

from tenantry.kernel.settings.addresses import HTTP_FORM, check_http_url, is_hostname, is_ip
from tenantry.kernel.settings.fields import expected, seconds, text, whole

__all__ = ("Observing",)

_TOKEN_LENGTH = 16


class Observing(BaseModel):
    """Metrics, traces, slow statements."""

    metrics_token: SecretStr | None = text(
        None,
        expects=f"at least {_TOKEN_LENGTH} printable characters without spaces",
        description="Bearer token that /metrics asks for, of every process; unset: it asks for none.",
    )
    metrics_token_file: Path | None = text(
        None,
        expects="a file, in place of metrics_token",
        description="File with that token, read at every scrape: a new one holds at once.",
    )
    metrics_host: str = text(
        "127.0.0.1",
        expects="a host name or an IP address",
        description="Address on which a worker or a provisioner serves its metrics; the API's are at its own /metrics.",
    )
    metrics_port: int = whole(
        0,
        least=0,
        most=65535,
        description="TCP port on which a worker or a provisioner serves its metrics; 0: nowhere.",
    )
    metrics_tenants: int = whole(
        20,
        least=0,
        most=1000,
        description="Tenants that have series of their own in each process' metrics: those that asked for most in the "
        "last whole minute; all others together are one. 0: none.",
        unit="tenants",
    )
    slow_statement: float = seconds(
        1.0, most=600, description="How long an SQL statement may take before it is logged, with whose it was."
    )
    database_labels: bool = text(
        True,
        expects="true or false",
        description="Tell PostgreSQL, as each transaction's application_name, which tenant and route it is of.",
    )
    tracing_url: str | None = text(
        None,
        expects=HTTP_FORM,
        description="Where traces are sent (OTLP over HTTP), such as http://127.0.0.1:4318; needs the extra otel. "
        "Unset: nothing is traced.",
    )
    tracing_rate: float = text(
        1.0,
        expects="a number from 0 to 1",
        description="Which share of all traces is recorded; the same for every process of a deployment.",
    )

    @field_validator("metrics_token")
    @classmethod
    def _check_metrics_token(cls, token: SecretStr | None) -> SecretStr | None:
        if token is not None:
            value = token.get_secret_value()
            if len(value) < _TOKEN_LENGTH or not value.isascii() or not value.isprintable() or " " in value:
                raise ValueError(expected(cls.model_fields["metrics_token"]))
        return token

    @field_validator("metrics_token_file")
    @classmethod
    def _check_metrics_token_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        if path is None:
            return None
        if info.data.get("metrics_token") is not None:
            raise ValueError("it unset where TENANTRY_METRICS_TOKEN is set")
        return path.expanduser()

    @field_validator("metrics_host")
    @classmethod
    def _check_metrics_host(cls, host: str) -> str:
        if not (is_ip(host) or is_hostname(host.lower())):
            raise ValueError(expected(cls.model_fields["metrics_host"]))
        return host

    @field_validator("tracing_url")
    @classmethod
    def _check_tracing_url(cls, url: str | None) -> str | None:
        return None if url is None else check_http_url(url).rstrip("/")

    @field_validator("tracing_rate")
    @classmethod
    def _check_tracing_rate(cls, rate: float) -> float:
        # Not a number compares as nothing does.
        if not 0 <= rate <= 1:
            raise ValueError(expected(cls.model_fields["tracing_rate"]))
        return rate
