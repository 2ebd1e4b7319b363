"""Addresses among the settings: which forms are taken, and how one is shown without its password."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import parse_qsl, unquote, urlencode

__all__ = (
    "HTTP_FORM",
    "MAIL_FORM",
    "POSTGRES_FORM",
    "REDIS_FORM",
    "SENDER_FORM",
    "STORAGE_FORM",
    "check_http_url",
    "check_mail_url",
    "check_postgres_url",
    "check_redis_url",
    "check_storage_url",
    "is_hostname",
    "is_ip",
    "is_loopback",
    "is_origin",
    "parse_sender",
    "redact_url",
)

POSTGRES_FORM = "an address of the form postgresql://user:password@host:port/database"
REDIS_FORM = "an address of the form redis://host:port/0, rediss://host:port/0 or unix:///path/to/socket"
STORAGE_FORM = "an address of the form file:///absolute/folder or s3://bucket/prefix"
HTTP_FORM = "an address of the form https://host:port"
MAIL_FORM = "an address of the form smtp://user:password@host:587?tls=starttls, or file:///absolute/folder"
SENDER_FORM = "an address such as no-reply@example.com or Example <no-reply@example.com>"

_ADDRESS = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.\-]*)://"
    r"(?:(?P<user>[^:@/?#\s]*)(?P<password>:[^@/?#\s]*)?@)?"
    r"(?P<hosts>(?:\[[0-9a-f:.%]+\]|[^:@/?#\s\[\],]*)(?::\d{1,5})?(?:,(?:\[[0-9a-f:.%]+\]|[^:@/?#\s\[\],]+)(?::\d{1,5})?)*)"
    r"(?P<path>/[^?#\s@]*)?(?:\?(?P<query>[^#\s]*))?",
    re.IGNORECASE,
)
# RFC 5322, section 3.4: one mailbox; of its address' quoted forms none, which hardly a server takes.
_MAILBOX = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@[A-Za-z0-9.-]+"
_SENDER = re.compile(rf'(?P<bare>{_MAILBOX})|(?P<name>"[^"<>\\]+"|[^"<>\\]+?)?\s*<(?P<address>{_MAILBOX})>')
_HOSTNAME_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_SECRET_PARAMETER = re.compile(r"pass|secret|token|key|credential", re.IGNORECASE)

# "General purpose bucket naming rules" of Amazon S3; other servers take the same names or more.
_BUCKET = re.compile(r"(?!.*\.\.)[a-z0-9][a-z0-9.\-]{1,61}[a-z0-9]")


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


def check_postgres_url(url: str) -> str:
    """Return `url` with the scheme `postgresql`.

    Raises:
        ValueError: it names no user, database or server; the text is the form that it should have.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None or match["scheme"].lower() not in {"postgresql", "postgres"}:
        raise ValueError(POSTGRES_FORM)
    if not match["user"] or len(match["path"] or "") < 2 or not _ports_valid(match["hosts"]):
        raise ValueError(POSTGRES_FORM)
    if not match["hosts"] and "host" not in dict(parse_qsl(match["query"] or "")):
        raise ValueError(POSTGRES_FORM)
    return "postgresql" + url[len(match["scheme"]) :]


def check_redis_url(url: str) -> str:
    """Return `url` with its scheme, one of redis, rediss and unix, in lower case.

    Raises:
        ValueError: it is no address of one server or socket; the text is the form that it should have.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None:
        raise ValueError(REDIS_FORM)
    scheme, hosts, path = match["scheme"].lower(), match["hosts"], match["path"] or ""
    if scheme == "unix":
        valid = not hosts and len(path) > 1
    else:
        valid = scheme in {"redis", "rediss"} and bool(hosts) and "," not in hosts
        valid = valid and re.fullmatch(r"(?:/\d{0,5})?", path) is not None and _ports_valid(hosts)
    if not valid:
        raise ValueError(REDIS_FORM)
    return scheme + url[len(scheme) :]


def check_storage_url(url: str) -> str:
    """Return `url`, of a folder (`file`) or of a bucket and a prefix in it (`s3`), without a slash at its end.

    Raises:
        ValueError: it is neither, or its path has empty parts, `.` or `..`; the text is the form that it should have.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None or match["user"] is not None or match["query"] is not None:
        raise ValueError(STORAGE_FORM)
    scheme, bucket, path = match["scheme"].lower(), match["hosts"], (match["path"] or "").rstrip("/")
    # Decoded, since `%2e%2e` climbs out of a folder as well as `..` does.
    parts = [unquote(part) for part in path.split("/")[1:]]
    if any(part in {"", ".", ".."} or "/" in part or "\0" in part for part in parts):
        raise ValueError(STORAGE_FORM)
    valid = bool(parts) and not bucket if scheme == "file" else scheme == "s3" and _BUCKET.fullmatch(bucket) is not None
    if not valid:
        raise ValueError(STORAGE_FORM)
    return f"{scheme}://{bucket}{path}"


def check_http_url(url: str) -> str:
    """Return `url`, http or https, without a slash at its end.

    Raises:
        ValueError: it is no address of one server, or has an account or a query; the text is the form it should have.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None or match["user"] is not None or match["query"] is not None:
        raise ValueError(HTTP_FORM)
    scheme, hosts = match["scheme"].lower(), match["hosts"]
    if scheme not in {"http", "https"} or not _is_one_host(hosts):
        raise ValueError(HTTP_FORM)
    return scheme + url[len(scheme) :].rstrip("/")


def check_mail_url(url: str) -> str:
    """Return `url`, of a mail server (`smtp`) or of a folder (`file`), without a slash at its end.

    Raises:
        ValueError: it is neither, or asks for another `tls` than starttls, implicit and none, or would send a password
            unencrypted to another machine; the text is what it should be.
    """
    match = _ADDRESS.fullmatch(url)
    if match is None:
        raise ValueError(MAIL_FORM)
    scheme, path = match["scheme"].lower(), (match["path"] or "").rstrip("/")
    if scheme == "file":
        if match["hosts"] or match["user"] is not None or match["query"] is not None or not path:
            raise ValueError(MAIL_FORM)
        return f"file://{path}"
    asked = parse_qsl(match["query"] or "", keep_blank_values=True)
    if scheme != "smtp" or path or not _is_one_host(match["hosts"]):
        raise ValueError(MAIL_FORM)
    if bool(match["user"]) != (len(match["password"] or "") > 1):
        raise ValueError(f"{MAIL_FORM}, with both a user and a password or neither")
    if asked and (len(asked) > 1 or asked[0][0] != "tls" or asked[0][1] not in {"starttls", "implicit", "none"}):
        raise ValueError(f"{MAIL_FORM}, tls being starttls, implicit or none")
    host = re.sub(r":\d+$", "", match["hosts"]).strip("[]")
    if match["user"] is not None and ("tls", "none") in asked and not is_loopback(host):
        raise ValueError("tls other than none where a password is sent")
    return scheme + url[len(scheme) :].replace("/?", "?").rstrip("/")


def parse_sender(text: str) -> tuple[str, str]:
    """Name (perhaps empty) and address of `no-reply@example.com` or `Example <no-reply@example.com>`.

    Raises:
        ValueError: it is neither; the text is the form that it should have.
    """
    match = _SENDER.fullmatch(text) if text.isprintable() else None
    if match is None:
        raise ValueError(SENDER_FORM)
    address = match["bare"] or match["address"]
    if not is_hostname(address.rpartition("@")[2].lower()):
        raise ValueError(SENDER_FORM)
    return (match["name"] or "").strip().strip('"'), address


def is_origin(text: str) -> bool:
    """Whether `text` is an origin as browsers send it: scheme, host and perhaps port (RFC 6454, section 6.2)."""
    match = _ADDRESS.fullmatch(text)
    return (
        match is not None
        and match["scheme"] in {"http", "https"}
        and bool(match["hosts"])
        and match["user"] is None
        and match["path"] is None
        and match["query"] is None
        and _ports_valid(match["hosts"])
    )


def is_ip(text: str) -> bool:
    """Whether `text` is an IPv4 or IPv6 address, without brackets."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def is_hostname(text: str) -> bool:
    """RFC 1123, section 2.1: labels of letters, digits and inner hyphens; not all numeric at the end."""
    labels = text.split(".")
    return len(text) <= 253 and all(map(_HOSTNAME_LABEL.fullmatch, labels)) and not labels[-1].isdigit()


def is_loopback(host: str) -> bool:
    """Whether nobody but this machine can reach that host."""
    return host.lower() == "localhost" or (is_ip(host) and ipaddress.ip_address(host).is_loopback)


def _is_one_host(hosts: str) -> bool:
    return bool(hosts) and not hosts.startswith(":") and "," not in hosts and _ports_valid(hosts)


def _ports_valid(hosts: str) -> bool:
    ports = (re.search(r":(\d+)$", host) for host in hosts.split(","))
    return all(port is None or 1 <= int(port[1]) <= 65535 for port in ports)
