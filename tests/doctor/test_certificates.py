"""Certificates that expire, or that nobody trusts, are found by a real handshake."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path
from socketserver import BaseRequestHandler, ThreadingTCPServer
from urllib.parse import urlsplit, urlunsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tests.doctor.support import Patient, codes, examine


def make_certificate(folder: Path, days: float) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1's own authority, good for so many days more, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=100))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    made, secret = folder / "server.crt", folder / "server.key"
    made.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    secret.chmod(0o600)
    return made, secret


class _Handshake(BaseRequestHandler):
    context: ssl.SSLContext

    def handle(self) -> None:
        try:
            with self.context.wrap_socket(self.request, server_side=True) as secured:
                secured.recv(1)
        except OSError:
            return  # who does not trust it goes away


@contextmanager
def served(folder: Path, days: float, kind: type[_Handshake] = _Handshake) -> Iterator[str]:
    """Host and port of a server with such a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(folder, days))
    handler = type("Handler", (kind,), {"context": context})
    with ThreadingTCPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(("days", "severity"), [(20, "warning"), (2, "critical"), (-1, "critical")])
@pytest.mark.parametrize("setting", ["TENANTRY_API_URL", "TENANTRY_APP_URL"])
def test_a_certificate_that_expires_is_found(
    patient: Patient, tmp_path: Path, setting: str, days: float, severity: str
) -> None:
    with served(tmp_path, days) as server:
        found = codes(examine(patient, "--only", "certificates", code=1, **{setting: f"https://{server}"}))
    assert found["certificates.expiry"]["severity"] == severity
    assert setting in found["certificates.expiry"]["summary"]


def test_redis_certificate_is_looked_at(patient: Patient, tmp_path: Path) -> None:
    with served(tmp_path, 3) as server:
        found = codes(examine(patient, "--only", "certificates", code=1, TENANTRY_REDIS_URL=f"rediss://:x@{server}/0"))
    assert found["certificates.expiry"]["summary"].startswith("Redis")


def test_a_certificate_that_is_good_but_of_nobody_known_is_found(patient: Patient, tmp_path: Path) -> None:
    with served(tmp_path, 90) as server:
        found = codes(examine(patient, "--only", "certificates", code=1, TENANTRY_API_URL=f"https://{server}"))
        assert {"certificates.good", "certificates.untrusted"} <= found.keys()


def test_a_trusted_certificate_is_good(patient: Patient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(tmp_path, 90) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "server.crt"))
        found = codes(examine(patient, "--only", "certificates", code=0, TENANTRY_API_URL=f"https://{server}"))
        assert found.keys() == {"certificates.good"}


def test_a_server_that_is_not_there_is_noted(patient: Patient) -> None:
    found = codes(examine(patient, "--only", "certificates", code=0, TENANTRY_API_URL="https://127.0.0.1:1"))
    assert found["certificates.unreached"]["severity"] == "note"


class _PostgresByTls(_Handshake):
    """What stands before a PostgreSQL and speaks TLS for it (protocol 3.0, "SSL Session Encryption")."""

    target: tuple[str, int]

    def handle(self) -> None:
        self.request.recv(8)
        self.request.sendall(b"S")
        with (
            self.context.wrap_socket(self.request, server_side=True) as client,
            socket.create_connection(self.target) as server,
        ):
            back = threading.Thread(target=_copy, args=(server, client))
            back.start()
            _copy(client, server)
            back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        return  # the other side has gone


def test_postgresqls_certificate_is_looked_at(patient: Patient, tmp_path: Path) -> None:
    parts = urlsplit(patient.app_url)
    target = parts.hostname, parts.port
    with served(tmp_path, 3, type("Postgres", (_PostgresByTls,), {"target": target})) as server:
        netloc = f"{parts.netloc.rpartition('@')[0]}@{server}"
        url = urlunsplit((parts.scheme, netloc, parts.path, "sslmode=require", ""))
        found = codes(examine(patient, "--only", "certificates", code=1, TENANTRY_DATABASE_URL=url))
    assert found["certificates.expiry"]["severity"] == "critical"
    assert found["certificates.expiry"]["summary"].startswith("PostgreSQL")
