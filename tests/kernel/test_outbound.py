"""Requests to customers' addresses: that they go there and nowhere else, and what the answers may cost us."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from tenantry.kernel import outbound
from tenantry.kernel.outbound import OutboundClient, OutboundError, RefusedAddressError
from tests.kernel.outbound_support import LOOPBACK, OK, local, post, receiving

NAME = "receiver.example"


class Names:
    """What the names of one test resolve to, and which addresses were connected to."""

    def __init__(self) -> None:
        self.answers: list[list[str]] = []
        self.asked: list[str] = []
        self.dialled: list[str] = []
        self.silent: set[str] = set()


@pytest.fixture
def names(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> Names:
    """Each lookup of `NAME` takes the next answer; nothing but 127.0.0.1 is connected to in earnest."""
    found = Names()

    def look_up(host: str, port: int) -> list[tuple[Any, ...]]:
        if host.removesuffix(".") == NAME:
            found.asked.append(host)
            addresses = found.answers.pop(0)
        else:
            addresses = [str(ip_address(host))]
        if not addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    connect = asyncio.BaseEventLoop.create_connection

    async def create_connection(self: Any, factory: Any, host: str, port: int, **options: Any) -> Any:
        found.dialled.append(host)
        if host in found.silent:
            await asyncio.Event().wait()
        if host != "127.0.0.1":
            raise ConnectionRefusedError
        return await connect(self, factory, host, port, **options)

    monkeypatch.setattr(outbound, "_look_up", look_up)
    monkeypatch.setattr(asyncio.BaseEventLoop, "create_connection", create_connection)
    return found


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `NAME`, signed by itself; the key is in the same file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "certificate.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The certificate is one of those that the machine trusts."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    outbound._ssl_context.cache_clear()
    yield
    outbound._ssl_context.cache_clear()


# Requests


async def test_a_request_is_sent_as_it_was_asked_for() -> None:
    async with receiving(OK) as receiver, local() as client:
        url = receiver.url("/a;v=1/b;v=2?x=%23&y=1")
        answer = await client.request("PUT", url, headers={"Webhook-Id": "1"}, content=b"hello")
    assert (answer.status, answer.body, answer.is_cut) == (200, b"ok", False)
    assert answer.headers == (("Content-Length", "2"),)
    line, *headers = receiver.heads[0].rstrip("\r\n").split("\r\n")
    assert line == "PUT /a;v=1/b;v=2?x=%23&y=1 HTTP/1.1"
    assert headers == [
        f"Host: 127.0.0.1:{receiver.port}",
        "Accept-Encoding: identity",
        "Content-Length: 5",
        "Webhook-Id: 1",
    ]
    assert receiver.bodies == [b"hello"]


async def test_a_connection_is_kept_for_the_next_request_and_closed_with_the_client() -> None:
    async with receiving(OK) as receiver, local(most=2) as client:
        for _ in range(3):
            assert (await post(client, receiver.url())).body == b"ok"
        assert len(receiver.connections) == 1


async def test_the_bound_of_an_answer_is_not_one_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbound, "_OVERHEAD", 100)
    async with receiving(OK) as receiver, local(most=10) as client:
        for _ in range(10):
            assert (await post(client, receiver.url())).body == b"ok"
        assert len(receiver.connections) == 1


@pytest.mark.parametrize("place", ["http://169.254.169.254/", "/elsewhere", "file:///etc/passwd"])
async def test_a_redirect_is_an_answer_and_not_followed(place: str, names: Names) -> None:
    redirect = f"HTTP/1.1 302 Found\r\nLocation: {place}\r\nContent-Length: 0\r\n\r\n".encode()
    async with receiving(redirect) as receiver, local() as client:
        answer = await post(client, receiver.url())
    assert (answer.status, dict(answer.headers)["Location"]) == (302, place)
    assert (len(receiver.heads), names.dialled, names.asked) == (1, ["127.0.0.1"], [])


async def test_proxies_of_the_environment_are_not_asked(names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://192.0.2.1:3128")
    async with receiving(OK) as receiver, local() as client:
        assert (await post(client, receiver.url())).status == 200
    assert names.dialled == ["127.0.0.1"]


async def test_a_compressed_body_is_left_as_it_came() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    async with receiving(head + b"\x1f\x8b\x08\0") as receiver, local() as client:
        assert (await post(client, receiver.url())).body == b"\x1f\x8b\x08\0"


# Where they go


@pytest.mark.parametrize(
    "address", ["10.0.0.1", "169.254.169.254", "127.0.0.2", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"]
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_name_that_resolves_to_an_address_of_ours_is_not_connected_to(
    address: str, scheme: str, names: Names
) -> None:
    names.answers = [[address]]
    async with local() as client:
        with pytest.raises(RefusedAddressError):
            await post(client, f"{scheme}://{NAME}/")
    assert (names.asked, names.dialled) == ([NAME], [])


async def test_one_address_of_ours_among_public_ones_is_enough_to_refuse_a_name(names: Names) -> None:
    names.answers = [["8.8.8.8", "2606:4700::1111", "10.0.0.1"]]
    async with OutboundClient(timeout=5) as client:
        with pytest.raises(RefusedAddressError):
            await post(client, f"https://{NAME}/")
    assert names.dialled == []


async def test_a_name_is_resolved_once_and_the_address_that_was_checked_is_connected_to(names: Names) -> None:
    names.answers = [["127.0.0.1"], ["169.254.169.254"]]
    async with receiving(OK) as receiver, local() as client:
        assert (await post(client, receiver.url(host=NAME))).status == 200
        assert (names.asked, names.dialled) == ([NAME], ["127.0.0.1"])
    assert f"Host: {NAME}:{receiver.port}" in receiver.heads[0]


async def test_a_name_that_is_rebound_is_refused_at_the_next_connection(names: Names) -> None:
    names.answers = [["127.0.0.1"], ["169.254.169.254"]]
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    async with receiving(closing) as receiver, local() as client:
        assert (await post(client, receiver.url(host=NAME))).status == 200
        with pytest.raises(RefusedAddressError):
            await post(client, receiver.url(host=NAME))
    assert (len(receiver.heads), names.dialled) == (1, ["127.0.0.1"])


async def test_names_of_ours_cannot_be_told_from_names_that_do_not_exist(names: Names) -> None:
    names.answers = [["10.0.0.1"], []]
    words = []
    async with OutboundClient(timeout=5) as client:
        for _ in range(2):
            with pytest.raises(OutboundError) as caught:
                await post(client, f"https://{NAME}/")
            words.append(str(caught.value))
    assert words == ["The host's name does not resolve to a public address."] * 2


async def test_nothing_goes_to_the_internet_without_tls(names: Names) -> None:
    names.answers = [["8.8.8.8"]]
    async with local() as client:
        with pytest.raises(RefusedAddressError, match="expected https://"):
            await post(client, f"http://{NAME}/")
    assert names.dialled == []


async def test_without_networks_besides_only_https_is_sent(names: Names) -> None:
    async with OutboundClient(timeout=5) as client:
        for url in ("http://8.8.8.8/", "http://127.0.0.1/", "https://127.0.0.1/", f"http://{NAME}/"):
            with pytest.raises(RefusedAddressError):
                await post(client, url)
    assert (names.asked, names.dialled) == ([], [])


async def test_the_next_address_is_tried_where_one_refuses_or_swallows_the_connection(names: Names) -> None:
    besides = (*LOOPBACK, ip_network("192.0.2.0/24"))
    names.answers, names.silent = [["192.0.2.1", "192.0.2.2", "127.0.0.1"]], {"192.0.2.2"}
    async with receiving(OK) as receiver, OutboundClient(timeout=1.5, besides=besides) as client:
        assert (await post(client, receiver.url(host=NAME))).status == 200
    assert names.dialled == ["192.0.2.1", "192.0.2.2", "127.0.0.1"]


async def test_a_name_of_a_thousand_addresses_has_us_try_a_few(names: Names) -> None:
    names.answers = [[f"8.8.{number // 250}.{number % 250}" for number in range(1000)]]
    async with OutboundClient(timeout=5) as client:
        with pytest.raises(OutboundError, match="connection could not be made"):
            await post(client, f"https://{NAME}/")
    assert names.dialled == ["8.8.0.0", "8.8.0.1", "8.8.0.2", "8.8.0.3"]


# TLS


async def test_a_certificate_that_nobody_vouches_for_is_refused_in_words(tls: ssl.SSLContext, names: Names) -> None:
    names.answers = [["127.0.0.1"]]
    async with receiving(OK, tls=tls) as receiver, local() as client:
        with pytest.raises(OutboundError, match=r"^The certificate could not be verified: self.signed certificate\.$"):
            await post(client, receiver.url(scheme="https", host=NAME))
    assert receiver.heads == []


@pytest.mark.usefixtures("trusted")
async def test_a_certificate_is_checked_against_the_name_and_not_the_address(tls: ssl.SSLContext, names: Names) -> None:
    names.answers = [["127.0.0.1"], ["127.0.0.1"]]
    async with receiving(OK, tls=tls) as receiver, local() as client:
        for host in (NAME, f"{NAME}."):
            assert (await post(client, receiver.url(scheme="https", host=host))).body == b"ok"
        with pytest.raises(OutboundError, match=r"could not be verified: IP address mismatch.*[^.]\.$"):
            await post(client, receiver.url(scheme="https"))
    # The dot at the end is for resolving alone, and addresses are never sent (RFC 6066 §3).
    assert (receiver.sni, names.asked) == ([NAME, NAME, None], [NAME, f"{NAME}."])
    assert [f"Host: {NAME}:" in head for head in receiver.heads] == [True, False]


async def test_what_speaks_no_tls_is_said_so() -> None:
    async with receiving(OK, greeting=b"220 mail.example ESMTP\r\n") as receiver, local() as client:
        with pytest.raises(OutboundError, match=r"^TLS could not be set up\.$"):
            await post(client, receiver.url(scheme="https"))
