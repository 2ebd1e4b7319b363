"""Settings that are good on one's own machine, and dangerous where customers are."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote, urlsplit

from tenantry.doctor.findings import Finding, critical, note, ok, some, warning
from tenantry.doctor.site import Need, host_of
from tenantry.kernel.outbound import is_public
from tenantry.kernel.settings.addresses import is_loopback

if TYPE_CHECKING:
    from tenantry.doctor.site import Site
    from tenantry.kernel.settings import Settings

__all__ = ("check_settings", "judge_settings")

_GUESSABLE = frozenset(
    {
        "",
        "postgres",
        "password",
        "passwort",
        "secret",
        "changeme",
        "admin",
        "root",
        "redis",
        "valkey",
        "tenantry",
        "test",
    }
    | {"123456", "12345678", "tenantry_app", "tenantry_owner", "letmein", "default", "example"}
)
_METADATA = ip_network("169.254.0.0/16")
"""Link-local, of which 169.254.169.254 gives a cloud's machine its keys."""
_HASH_COST = 7168 * 5
"""KiB times passes: the least of what OWASP's cheat sheet on password storage names for argon2id."""


async def check_settings(site: Site) -> list[Finding]:
    found = judge_settings(site.settings)
    found += _judge_secrets(site)
    if site.embedded and not is_loopback(site.settings.host):
        found.append(
            warning(
                "settings.embedded",
                "The embedded servers are for one's own machine: no replica, no backup, no TLS",
                seen=f"TENANTRY_HOST={site.settings.host}, with the servers of `tenantry up`",
                expected="servers of your own, by TENANTRY_DATABASE_URL and TENANTRY_REDIS_URL",
                remedy="See docs/operations/deployment.md, A first deployment.",
            )
        )
    if site.options.known_logins is not None and (logins := await site.options.known_logins()):
        found.append(
            critical(
                "settings.known-passwords",
                "The demo's log-ins work, whose passwords are in the sources",
                seen=some(logins),
                expected="none of them",
                remedy="Change their passwords, or purge the demo organizations and deactivate the operator.",
            )
        )
    if site.development:
        # Everything here is as `tenantry up` has it, for good reasons, and nobody else can reach it.
        found = [_as_note(finding) for finding in found]
    return found or [ok("settings.good", "No setting is dangerous")]


def _as_note(finding: Finding) -> Finding:
    return note(
        finding.code,
        f"{finding.summary} (on one's own machine, that is as it should be)",
        seen=finding.seen,
        expected=finding.expected,
        remedy=finding.remedy,
    )


def judge_settings(settings: Settings) -> list[Finding]:
    """What the settings alone say."""
    return [*_judge_mail(settings), *_judge_addresses(settings), *_judge_edge(settings), *_judge_rest(settings)]


def _judge_mail(settings: Settings) -> list[Finding]:
    url = settings.mail_url
    if url is None:
        return [
            note(
                "settings.no-mail",
                "No mail is sent: invitations and resets of passwords are refused",
                seen="TENANTRY_MAIL_URL is not set",
                remedy="Set it: docs/mail.md.",
            )
        ]
    if url.startswith("file:"):
        return [
            warning(
                "settings.mail-kept",
                "Mail is kept in a folder, and sent to nobody; with it links that let people in",
                seen=url,
                expected="smtp://…",
                remedy="Set TENANTRY_MAIL_URL to your mail server.",
            )
        ]
    if ("tls", "none") in parse_qsl(urlsplit(url).query) and not is_loopback(host_of(url)):
        return [
            critical(
                "settings.mail-plain",
                "Mail, with links that let people in, goes over the network unencrypted",
                seen="tls=none",
                expected="tls=starttls or tls=implicit",
                remedy="Change TENANTRY_MAIL_URL.",
            )
        ]
    return []


def _judge_addresses(settings: Settings) -> list[Finding]:
    plain = [
        f"TENANTRY_{name.upper()}={url}"
        for name in ("api_url", "app_url", "public_app_url", "storage_s3_endpoint")
        if (url := getattr(settings, name)) is not None
        and url.startswith("http:")
        and not is_loopback(host_of(url.replace("{tenant}", "tenant")))
    ]
    if not plain:
        return []
    return [
        critical(
            "settings.http",
            "Passwords, tokens and data would go over the network unencrypted",
            seen=some(plain),
            expected="https://…",
            remedy="Put TLS before it, and change the address.",
        )
    ]


def _judge_edge(settings: Settings) -> list[Finding]:
    found = []
    if "*" in settings.cors_origins:
        found.append(
            warning(
                "settings.cors",
                "Every page on the web may call the API from its visitors' browsers",
                seen="TENANTRY_CORS_ORIGINS=*",
                expected="the origins of your front end",
                remedy="Name them.",
            )
        )
    elif plain := [
        origin for origin in settings.cors_origins if origin.startswith("http:") and not is_loopback(host_of(origin))
    ]:
        found.append(
            warning(
                "settings.cors",
                "Pages that anybody on the way can change may call the API",
                seen=some(plain),
                expected="https://…",
                remedy="Serve the front end by TLS, and change TENANTRY_CORS_ORIGINS.",
            )
        )
    if not settings.trusted_proxies and not is_loopback(settings.host):
        found.append(
            note(
                "settings.proxies",
                "No proxy is trusted: behind one, all clients count as one when guesses are counted",
                seen="TENANTRY_TRUSTED_PROXIES is empty",
                remedy="Set it to the networks of the proxies in front, if there are any.",
            )
        )
    networks = [ip_network(network) for network in settings.outbound_networks]
    if metadata := [network for network in networks if network.version == 4 and network.overlaps(_METADATA)]:
        found.append(
            critical(
                "settings.outbound-metadata",
                "Customers may have us fetch the keys that a cloud gives its machines",
                seen=f"TENANTRY_OUTBOUND_NETWORKS has {some(metadata)}",
                expected=f"nothing of {_METADATA}",
                remedy="Take it out.",
            )
        )
    if inner := [network for network in networks if not is_public(network.network_address)]:
        found.append(
            warning(
                "settings.outbound",
                "Customers' webhooks may reach networks that are not public",
                seen=some(inner),
                expected="none, unless customers are inside them",
                remedy="Take out what no customer needs of TENANTRY_OUTBOUND_NETWORKS.",
            )
        )
    return found


def _judge_rest(settings: Settings) -> list[Finding]:
    found = []
    cost = settings.password_hash_memory_cost * settings.password_hash_time_cost
    if cost < _HASH_COST:
        found.append(
            warning(
                "settings.hashing",
                "Passwords are hashed so cheaply that a stolen table is worth guessing at",
                seen=f"{settings.password_hash_memory_cost} KiB, {settings.password_hash_time_cost} passes",
                expected="19,456 KiB and 2 passes or more, as OWASP says",
                remedy="Leave TENANTRY_PASSWORD_HASH_… to its defaults.",
            )
        )
    if settings.log_level == "DEBUG":
        found.append(
            warning(
                "settings.debug",
                "Everything is logged, and slowly",
                seen="TENANTRY_LOG_LEVEL=DEBUG",
                expected="INFO",
                remedy="Leave it to its default.",
            )
        )
    if settings.access_token_ttl > 3600:
        found.append(
            note(
                "settings.long-tokens",
                "Other services that verify access tokens by themselves take one for hours after its session has ended",
                seen=f"TENANTRY_ACCESS_TOKEN_TTL={settings.access_token_ttl}",
                expected="900",
                remedy="Leave TENANTRY_ACCESS_TOKEN_TTL to its default.",
            )
        )
    if settings.token_issuer == "tenantry":  # noqa: S105 - a name
        found.append(
            note(
                "settings.issuer",
                "Tokens name no issuer of their own, so those of two deployments look alike to whoever verifies both",
                seen="TENANTRY_TOKEN_ISSUER=tenantry",
                expected="the deployment's own name or address",
                remedy="Set it before there are verifiers: tokens that were issued so far are refused then.",
            )
        )
    return found


def _judge_secrets(site: Site) -> list[Finding]:
    passwords = {need: unquote(urlsplit(url).password or "") for need, url in site.urls.items()}
    weak = [
        need.address
        for need, password in passwords.items()
        if password.lower() in _GUESSABLE and (password or _reachable_by_others(site, need))
    ]
    found: list[Finding] = []
    if weak:
        found.append(
            critical(
                "settings.weak-secrets",
                "Servers are logged in at with a password that everybody would try, or with none",
                seen=some(weak),
                expected="long random passwords",
                remedy="`tenantry bootstrap` makes those of PostgreSQL; requirepass or an ACL is Redis'.",
            )
        )
    if Need.APP in passwords and passwords[Need.APP] and passwords[Need.APP] == passwords.get(Need.OWNER):
        found.append(
            critical(
                "settings.same-secret",
                "The application's password is also the owner's: whoever gets hold of one process owns every schema",
                seen="the same in TENANTRY_DATABASE_URL and TENANTRY_DATABASE_OWNER_URL",
                expected="two passwords",
                remedy="`tenantry bootstrap` makes new ones.",
            )
        )
    return found


def _reachable_by_others(site: Site, need: Need) -> bool:
    """Without a password: a socket is this machine's, and PostgreSQL may ask for a certificate instead."""
    host = host_of(site.urls[need])
    return need is Need.REDIS and bool(host) and not is_loopback(host)
