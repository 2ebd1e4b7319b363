"""PATCH of groups, whose members may be thousands.

scim2-models copies and compares a resource for each operation: ten of them took seconds on a group of two thousand, and
nobody else was answered meanwhile. What directories send of members is done here on a dictionary; the rest is the
library's, without the members where it is not about them.
"""

from __future__ import annotations

import re
from typing import Any

from scim2_models import InvalidValueException, PatchOp, PatchOperation

from tenantry.domain.scim.groups import member_of
from tenantry.domain.scim.resources import Group, Member

__all__ = ("MOST_MEMBERS", "apply_to_group", "require_few_members")

MOST_MEMBERS = 2000
"""In one body."""
_MOST_WORK = 2000
"""Members times operations that the library is left to do."""

_PREFIX = f"{Group.__schema__}:".lower()
_ONE = re.compile(r'members\[\s*value\s+eq\s+"([^"\\]*)"\s*\]', re.IGNORECASE)

_Inside = dict[str, Member]


def apply_to_group(group: Group, patch: PatchOp[Any]) -> bool:
    """Change the group as the operations say, one after the other; whether anything is another than before.

    Raises:
        SCIMException: an operation is refused. What the group is then is nothing to go by.
    """
    inside: _Inside = {member.value or "": member for member in group.members or []}
    before = (group.display_name, group.external_id, set(inside))
    work = 0
    for operation in patch.operations or []:
        path = str(operation.path or "").strip()
        path = path[len(_PREFIX) :] if path.lower().startswith(_PREFIX) else path
        if path.lower() == "members":
            _apply_to_members(inside, operation.op, operation.value)
        elif operation.op == PatchOperation.Op.remove and (one := _ONE.fullmatch(path)) is not None:
            inside.pop(one[1], None)
        elif path.lower().startswith("members"):
            work += len(inside) + 1
            if work > _MOST_WORK:
                raise InvalidValueException(detail="Operations: too many of this kind for so large a group")
            _by_library(group, inside, operation)
        else:
            _without_members(group, inside, operation)
    group.__dict__["members"] = list(inside.values()) or None
    return before != (group.display_name, group.external_id, set(inside))


def require_few_members(sent: dict[str, Any]) -> None:
    """Refuse a body with more members than are looked at in one request.

    Raises:
        InvalidValueException: it has.
    """
    operations = sent.get("Operations")
    values = (
        [each.get("value") for each in operations if isinstance(each, dict)] if isinstance(operations, list) else []
    )
    lists = [sent.get("members"), *values, *(each.get("members") for each in values if isinstance(each, dict))]
    if sum(len(each) for each in lists if isinstance(each, list)) > MOST_MEMBERS:
        raise InvalidValueException(detail=f"members: expected at most {MOST_MEMBERS} in one request")


def _apply_to_members(inside: _Inside, op: str, value: Any) -> None:
    if op == PatchOperation.Op.remove and value is None:
        inside.clear()
        return
    ids = _ids_of(value)
    if op == PatchOperation.Op.remove:
        for user_id in ids:
            inside.pop(user_id, None)
        return
    if op == PatchOperation.Op.replace_:
        for user_id in inside.keys() - set(ids):
            del inside[user_id]
    for user_id in ids:
        inside.setdefault(user_id, member_of(user_id))


def _ids_of(value: Any) -> list[str]:
    entries = value if isinstance(value, list) else [] if value is None else [value]
    found = []
    for entry in entries:
        if isinstance(entry, Member):
            entry = {"value": entry.value, "type": entry.type}
        fields = {name.lower(): each for name, each in entry.items()} if isinstance(entry, dict) else {}
        if not isinstance(fields.get("value"), str):
            raise InvalidValueException(detail="members.value: expected the id of a user")
        kind = fields.get("type")
        if kind is not None and (not isinstance(kind, str) or kind.lower() != "user"):
            raise InvalidValueException(detail="members.type: groups hold users, and no groups")
        found.append(fields["value"])
    return found


def _by_library(group: Group, inside: _Inside, operation: PatchOperation[Any]) -> None:
    group.__dict__["members"] = list(inside.values()) or None
    PatchOp[Group].model_construct(operations=[operation]).patch(group)
    inside.clear()
    inside.update((member.value or "", member) for member in group.members or [])


def _without_members(group: Group, inside: _Inside, operation: PatchOperation[Any]) -> None:
    value = operation.value
    if operation.path is None and isinstance(value, dict):
        for name in [each for each in value if each.lower() in {"members", f"{_PREFIX}members"}]:
            _apply_to_members(inside, operation.op, value[name])
        value = {name: each for name, each in value.items() if name.lower().removeprefix(_PREFIX) != "members"}
        operation = operation.model_copy(update={"value": value})
    group.__dict__["members"] = None
    PatchOp[Group].model_construct(operations=[operation]).patch(group)
    if group.members:
        # A path like `members[…]` as a key of the value: nothing sends that.
        raise InvalidValueException(detail="members: expected as an attribute, or as the path of an operation")
