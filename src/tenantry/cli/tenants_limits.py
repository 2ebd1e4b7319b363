"""`tenantry tenants limits`: what one tenant has in place of its plan's limits."""

from __future__ import annotations

import asyncio
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import msgspec
import rich_click as click

from tenantry.cli.control import control_plane
from tenantry.cli.output import checked, json_option, print_fields, print_json, print_table, quiet_option
from tenantry.cli.problems import CommandError, ExitCode
from tenantry.features import ENTITLEMENTS
from tenantry.platform.audit.service import cli_actor
from tenantry.platform.tenants.limits import (
    LimitOverrides,
    TenantLimits,
    change_overrides,
    read_entitled,
    stored_overrides,
)
from tenantry.platform.tenants.service import TenantService
from tenantry.tenancy.plan import LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ("limits",)

_SWITCH = {"on": True, "true": True, "yes": True, "off": False, "false": False, "no": False}


@click.command(epilog="Example: tenantry tenants limits acme --set quotas.seats=50 --set features.sso=on")
@click.argument("slug")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Give it a limit of its own, such as quotas.seats=50, quotas.storage='10 GB', features.sso=on or "
    "request_rate=20; 'unlimited' lifts a quota of the plan.",
)
@click.option("--unset", multiple=True, metavar="NAME", help="Leave that to the plan again.")
@click.option("--show", is_flag=True, help="Show all limits also after a change; without one they are shown anyway.")
@json_option
@quiet_option
def limits(
    slug: str, settings: tuple[str, ...], unset: tuple[str, ...], show: bool, as_json: bool, quiet: bool
) -> ExitCode:
    """Show what a tenant is entitled to and uses, and give it limits of its own in the place of its plan's.

    They hold in every process within a second. A quota below what there is takes nothing away, and lets nothing more
    be made. Ends with 2 where there is no such limit.
    """
    wanted = dict(_setting(each) for each in settings)
    for name in unset:
        _require_known(name)
    if both := wanted.keys() & set(unset):
        raise CommandError(f"both to be set and unset: {', '.join(sorted(both))}", ExitCode.USAGE)

    def change(present: dict[str, Any]) -> dict[str, Any]:
        return stored_overrides(checked(LimitOverrides, **_nested(_without(_flat(present), unset) | wanted)))

    # What is wrong by itself is told before anything is asked of the database.
    change({})

    async def work() -> TenantLimits:
        async with control_plane() as control:
            if wanted or unset:
                async with control.database.transaction(control.write_scope) as transaction:
                    tenants = TenantService(session=transaction.session)
                    tenant = await change_overrides(tenants, slug, change, actor=cli_actor())
            else:
                tenant = await control.tenant(slug)
            context = control.context(tenant)
            return await read_entitled(tenant, context, database=control.database, read_scope=control.read_scope)

    found = asyncio.run(work())
    if as_json:
        print_json(found)
    elif not quiet:
        if show or not (wanted or unset):
            _show(found)
        else:
            own = _flat(stored_overrides(found.overrides))
            click.echo(f"{slug}: {', '.join(f'{name}={_text(value)}' for name, value in own.items()) or 'as its plan'}")
    return ExitCode.OK


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise CommandError(f"--set {text}: expected NAME=VALUE", ExitCode.USAGE)
    _require_known(name)
    if name.startswith("features."):
        if (switch := _SWITCH.get(value.lower())) is None:
            raise CommandError(f"--set {text}: expected on or off", ExitCode.USAGE)
        return name, switch
    try:
        return name, msgspec.json.decode(value, type=float if name.endswith("_rate") or name == "job_weight" else int)
    except msgspec.DecodeError:
        # Words such as `unlimited` or `10 GB`; what is none of them is refused with the others.
        return name, value


def _require_known(name: str) -> None:
    known = [
        *LIMITS,
        *(f"quotas.{quota}" for quota in ENTITLEMENTS.quotas),
        *(f"features.{switch}" for switch in ENTITLEMENTS.switches),
    ]
    if name in known:
        return
    nearest = get_close_matches(name, known)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"there are {', '.join(known)}"
    raise CommandError(f"there is no limit {name!r}; {hint}", ExitCode.USAGE)


def _flat(stored: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: value for name, value in stored.items() if name not in {"quotas", "features"}}
    for table in ("quotas", "features"):
        found |= {f"{table}.{name}": value for name, value in stored.get(table, {}).items()}
    return found


def _without(values: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in set(names)}


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in flat.items():
        table, dot, key = name.partition(".")
        if dot:
            found.setdefault(table, {})[key] = value
        else:
            found[name] = value
    return found


def _show(found: TenantLimits) -> None:
    own = set(_flat(stored_overrides(found.overrides)))
    shown: dict[str, object] = {"plan": found.plan}
    shown |= {name: _mark(getattr(found.limits, name), name in own) for name in LIMITS}
    shown |= {
        f"features.{feature.name}": _mark(feature.is_included, f"features.{feature.name}" in own)
        for feature in found.features
    }
    print_fields(shown)
    print_table(
        ("Quota", "Used", "Allowed"),
        (
            (
                f"quotas.{quota.name}",
                quota.used,
                _mark("unlimited" if quota.allowed is None else quota.allowed, f"quotas.{quota.name}" in own),
            )
            for quota in found.quotas
        ),
    )


def _mark(value: object, is_own: bool) -> object:
    return f"{_text(value)} (its own)" if is_own else _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "-" if value is None else str(value)
