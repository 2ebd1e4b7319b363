"""`tenantry certificates`: what is left of purged tenants."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID

import msgspec
import rich_click as click
from sqlalchemy import select

from tenantry.cli.control import control_plane
from tenantry.cli.output import json_option, print_json, print_table, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.kernel.errors import ResourceNotFoundException
from tenantry.kernel.security import Keyring
from tenantry.kernel.security.keyring import KeyringError
from tenantry.kernel.service import to_struct
from tenantry.platform.deletion.certificate import CertificateError, VerifiedCertificate, verify_certificate
from tenantry.platform.deletion.models import PurgeCertificate
from tenantry.platform.deletion.schemas import CertificateRead, CertificateSummary
from tenantry.platform.deletion.service import CertificateService

if TYPE_CHECKING:
    from typing import BinaryIO

    from tenantry.cli.control import ControlPlane

__all__ = ("certificates",)


@click.group(epilog="Example: tenantry certificates verify acme.json")
def certificates() -> None:
    """List, show and verify the certificates of purges."""


@certificates.command("list", epilog="Example: tenantry certificates list --json")
@json_option
def list_certificates(as_json: bool) -> None:
    """List the certificates of this deployment, the newest first."""

    async def work() -> list[CertificateSummary]:
        statement = select(PurgeCertificate).order_by(PurgeCertificate.id.desc())
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            return [to_struct(found, CertificateSummary) for found in await transaction.session.scalars(statement)]

    found = asyncio.run(work())
    if as_json:
        print_json(found)
        return
    print_table(
        ("Slug", "Tenant", "Purged"),
        ((each.slug, each.tenant_id, f"{each.created_at:%Y-%m-%d %H:%M:%S}") for each in found),
    )


@certificates.command(epilog="Example: tenantry certificates show acme --jws > acme.jws")
@click.argument("slug_or_id")
@click.option("--jws", "as_jws", is_flag=True, help="Print the signed form alone (a compact JWS, RFC 7515).")
def show(slug_or_id: str, as_jws: bool) -> None:
    """Print a certificate as JSON, its signed form included.

    SLUG_OR_ID is the slug that the tenant had, or its id; of several that had the slug, the last purged.
    """

    async def work() -> CertificateRead:
        async with control_plane() as control, control.database.transaction(control.read_scope) as transaction:
            service = CertificateService(session=transaction.session)
            tenant_id = _uuid(slug_or_id)
            found = service.of_slug(slug_or_id) if tenant_id is None else service.of_tenant(tenant_id)
            return to_struct(await found, CertificateRead)

    found = asyncio.run(work())
    if as_jws:
        click.echo(found.jws)
    else:
        print_json(found)


@certificates.command(epilog="Example: tenantry certificates verify acme.json --jwks jwks.json")
@click.argument("file", type=click.File("rb"))
@click.option("--thumbprint", help="The signing key's, as it was noted when the certificate was handed out.")
@click.option(
    "--jwks",
    type=click.File("rb"),
    help="A copy of the deployment's /.well-known/jwks.json of the time when the certificate was handed out.",
)
@json_option
@quiet_option
def verify(file: BinaryIO, thumbprint: str | None, jwks: BinaryIO | None, as_json: bool, quiet: bool) -> None:
    """Check that a certificate is genuine; ends with 1 where it is not.

    FILE is what `tenantry certificates show` or the API has given, or `-` for stdin. With --thumbprint or --jwks
    nothing but the file is needed, wherever this runs. Without, this deployment is asked: its key must have signed
    it, or, where that key has been rotated away, its records must hold the very same certificate.
    """
    jws = _jws_of(file.read())
    try:
        verified = verify_certificate(jws)
    except CertificateError as error:
        raise CommandError(f"not genuine: {error}") from None
    if thumbprint is not None or jwks is not None:
        trusted = "the thumbprint given" if thumbprint is not None else "the JWK Set given"
        known = {thumbprint} if jwks is None else _thumbprints(jwks.read()) & {thumbprint or verified.kid}
        if verified.kid not in known:
            raise CommandError(f"not genuine: it was signed by another key, {verified.kid}")
    else:
        trusted = asyncio.run(_known_here(verified, jws))
    said = verified.certificate
    if as_json:
        print_json({"genuine": True, "kid": verified.kid, "trustedBy": trusted, "certificate": said})
    elif not quiet:
        click.echo(f"Genuine: {said.get('slug')} ({said.get('tenantId')}) was purged at {said.get('completedAt')}.")
        click.echo(f"Signed by the key {verified.kid}, which is known from {trusted}.")


async def _known_here(verified: VerifiedCertificate, jws: str) -> str:
    """How this deployment knows the key.

    Raises:
        CommandError: it does not.
    """
    async with control_plane() as control:
        if verified.kid in _present_keys(control):
            return "the deployment's present keys"
        tenant_id = _uuid(str(verified.certificate.get("tenantId")))
        async with control.database.transaction(control.read_scope) as transaction:
            service = CertificateService(session=transaction.session)
            try:
                recorded = None if tenant_id is None else await service.of_tenant(tenant_id)
            except ResourceNotFoundException:
                recorded = None
    if recorded is None or recorded.jws != jws:
        raise CommandError(f"not genuine: this deployment knows neither the key {verified.kid} nor the certificate")
    return "the deployment's records"


def _present_keys(control: ControlPlane) -> set[str]:
    try:
        ring = Keyring.open(control.settings.keyring_path, retain=control.settings.keyring_retain, create=False)
    except KeyringError:
        # An operator's machine may have none: the records are asked instead.
        return set()
    return {info.kid for info in ring.keys()}  # noqa: SIM118 - not a mapping


def _jws_of(content: bytes) -> str:
    """The JWS of a file that holds it alone, or as the member `jws` of a JSON object."""
    text = content.decode("utf-8", errors="replace").strip()
    if not text.startswith("{"):
        return text
    try:
        return msgspec.json.decode(text, type=_Signed).jws
    except msgspec.DecodeError:
        raise CommandError("expected a JWS, or a JSON object with a member `jws`", ExitCode.USAGE) from None


class _Signed(msgspec.Struct):
    jws: str


def _thumbprints(content: bytes) -> set[str]:
    try:
        found: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
        return {key["kid"] for key in found["keys"]}
    except (msgspec.DecodeError, KeyError, TypeError):
        raise CommandError("--jwks: expected a JWK Set (RFC 7517 §5)", ExitCode.USAGE) from None


def _uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
