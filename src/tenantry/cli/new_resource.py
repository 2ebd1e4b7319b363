"""`tenantry new-resource`: a resource of one's own, from its name and its fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import rich_click as click

from tenantry.cli.output import json_option, print_json
from tenantry.cli.problems import CommandError, ExitCode

if TYPE_CHECKING:
    from tenantry.scaffold.checkout import Plan
    from tenantry.scaffold.resource import Resource

__all__ = ("new_resource",)


class NewResourceRead(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What `new-resource --json` prints: paths in the checkout."""

    resource: str
    written: bool
    created: list[str]
    changed: list[str]


@click.command(
    "new-resource",
    epilog='Example: tenantry new-resource invoice --fields "number:str! amount:decimal status:draft|paid"',
)
@click.argument("name")
@click.option(
    "--fields",
    required=True,
    help="`name:type`, separated by blanks or commas. Types: str (a line), text, int, decimal, bool, date, datetime, "
    "uuid, or words such as draft|sent|paid. `?` after it: may be left out; `!`: no two have the same.",
)
@click.option("--plural", help="What many are called, where it is not what English makes of the name.")
@click.option("--dry-run", is_flag=True, help="Say what would be written, and write nothing.")
@json_option
def new_resource(name: str, fields: str, plural: str | None, dry_run: bool, as_json: bool) -> None:
    """Write a resource that every organization has for itself: package, migration, tests and list entries.

    NAME is of one, in lower case: invoice, credit_note. Needs a checkout of the sources with its development
    environment (`make install`). Nothing that is there is overwritten; what was written passes `make check` and
    `make test` as it is, and is yours to change: docs/add-a-resource.md explains every line of it.
    """
    resource, plan = _planned(name, fields, plural)
    if not dry_run:
        from tenantry.scaffold.checkout import CheckoutError, write_resource

        try:
            write_resource(plan)
        except CheckoutError as error:
            raise CommandError(str(error), ExitCode.FAILED) from error
    if as_json:
        print_json(
            NewResourceRead(
                resource=resource.name, written=not dry_run, created=list(plan.created), changed=list(plan.changed)
            )
        )
        return
    for word, paths in (("create", plan.created), ("change", plan.changed)):
        for path in paths:
            click.echo(f"{word}  {path}")
    if dry_run:
        click.echo("Nothing was written.", err=True)
        return
    click.echo(
        "\nNext: read docs/add-a-resource.md beside it, then\n"
        "  make check\n"
        f'  make test ARGS="tests/domain/test_{resource.plural}.py"\n'
        "and `tenantry migrate tenants` gives the organizations that are there the table.",
        err=True,
    )


def _planned(name: str, fields: str, plural: str | None) -> tuple[Resource, Plan]:
    from tenantry.scaffold.checkout import CheckoutError, plan_resource
    from tenantry.scaffold.fields import FieldsError, parse_fields
    from tenantry.scaffold.resource import NameRefused, Resource, plural_of
    from tenantry.tenancy.revisions import RevisionError

    try:
        resource = Resource(name, plural or plural_of(name), parse_fields(fields))
        return resource, plan_resource(resource)
    except FieldsError as error:
        raise CommandError(f"--fields: {error}", ExitCode.USAGE) from error
    except NameRefused as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
    except (CheckoutError, RevisionError) as error:
        raise CommandError(str(error), ExitCode.USAGE) from error
