"""SCIM's protocol (RFC 7644) by scim2-server, with what this service does in its own way.

The library parses, applies PUT and PATCH to the state that was read, compares entity tags and shapes answers. What it
does not decide is here: how much of a request is looked at, and what the directories in use send.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec
from pydantic import ValidationError
from scim2_models import (
    Context,
    InvalidFilterException,
    InvalidSyntaxException,
    InvalidValueException,
    PatchOp,
    Resource,
    ResourceType,
)
from scim2_server.service import ScimService, scim_exception_of

from tenantry.domain.scim.membership import apply_to_group, require_few_members
from tenantry.domain.scim.resources import PROVIDER, Group, Name, User
from tenantry.domain.scim.users import derived_name

if TYPE_CHECKING:
    from scim2_models import SearchRequest
    from scim2_server.conditions import Conditions

__all__ = ("LONGEST_EXPRESSION", "MOST_OPERATIONS", "SERVICE", "DirectoryService")

LONGEST_EXPRESSION = 1000
"""Characters of a filter or a path: parsing takes time, and nothing that a directory sends comes near it."""
MOST_OPERATIONS = 100
"""In one PATCH: each is applied to the whole resource. Entra sends at most a few dozen."""

_ECHOED = "emails"
"""The attribute that only shows another one: the address is the userName."""


class DirectoryService(ScimService):
    """The steps of one request that neither read nor write."""

    def read_creation(self, resource_type: ResourceType, body: bytes, content_type: str | None) -> Resource[Any]:
        """A new resource; a user is active unless the directory says otherwise."""
        return super().read_creation(resource_type, self._with_active(resource_type, body), content_type)

    def read_replacement(self, resource_type: ResourceType, body: bytes, content_type: str | None) -> Resource[Any]:
        """A new state. Whether `active` was left out, `apply_replacement` sees by the fields that were sent."""
        sent = _object_of(body)
        names = {name.lower() for name in sent}
        found = super().read_replacement(resource_type, self._with_active(resource_type, body), content_type)
        if isinstance(found, User):
            found.__pydantic_fields_set__ -= {name for name in ("active", "roles") if name not in names}
        return found

    def apply_replacement(
        self, current: Resource[Any], replacement: Resource[Any], conditions: Conditions
    ) -> Resource[Any] | None:
        """PUT. A directory that does not speak of roles, or of `active`, leaves them as they are (RFC 7644 §3.5.1)."""
        if isinstance(current, User) and isinstance(replacement, User):
            sent = set(replacement.model_fields_set)
            if "active" not in sent:
                replacement.active = current.active
            if "roles" not in sent:
                replacement.roles = current.roles
            if replacement.display_name is None and isinstance(replacement.name, Name):
                replacement.display_name = derived_name(replacement.name.given_name, replacement.name.family_name)
        return super().apply_replacement(current, replacement, conditions)

    def apply_patch(
        self, current: Resource[Any], patch_op: PatchOp[Any], conditions: Conditions
    ) -> Resource[Any] | None:
        """PATCH; of groups by `apply_to_group`."""
        if not isinstance(current, Group):
            return super().apply_patch(current, patch_op, conditions)
        self.check_preconditions(current, "PATCH", conditions)
        return current if apply_to_group(current, patch_op) else None

    def read_patch(self, resource_type: ResourceType, body: bytes, content_type: str | None) -> PatchOp[Any]:
        """A PATCH, without what it says of `emails`: RFC 7644 §3.5.2 would refuse it all, and Entra always says it.

        Raises:
            InvalidValueException: it has too many operations, or too long a path.
        """
        self.ensure_patch_supported()
        self.ensure_json(content_type)
        sent = _object_of(body)
        key = next((name for name in sent if name.lower() == "operations"), "Operations")
        operations = sent.get(key)
        if not isinstance(operations, list):
            raise InvalidValueException(detail="Operations: expected a list of operations")
        if len(operations) > MOST_OPERATIONS:
            raise InvalidValueException(detail=f"Operations: expected at most {MOST_OPERATIONS}")
        model = self.get_model(resource_type)
        kept = [_selecting_by_value(each) for each in operations]
        if issubclass(model, User):
            kept = [each for each in map(_without_echo, kept) if each is not None]
            if operations and not kept:
                return PatchOp[model].model_construct(operations=[])  # type: ignore[valid-type]
        else:
            require_few_members({"Operations": kept})
        _require_short(kept)
        sent[key] = kept
        try:
            return PatchOp[model].model_validate(sent, scim_ctx=Context.RESOURCE_PATCH_REQUEST)  # type: ignore[valid-type]
        except ValidationError as error:
            raise scim_exception_of(error) from error

    def read_search(self, resource_types: list[ResourceType], payload: Any) -> tuple[SearchRequest[Any], Any]:
        """A search.

        Raises:
            InvalidFilterException: its filter is too long.
        """
        if isinstance(payload, Mapping):
            for name, value in payload.items():
                if name.lower() in {"filter", "sortby"} and isinstance(value, str) and len(value) > LONGEST_EXPRESSION:
                    raise InvalidFilterException(detail=f"{name}: expected at most {LONGEST_EXPRESSION} characters")
        return super().read_search(resource_types, payload)

    def _with_active(self, resource_type: ResourceType, body: bytes) -> bytes:
        sent = _object_of(body)
        require_few_members({name.lower(): value for name, value in sent.items()})
        if not issubclass(self.get_model(resource_type), User) or "active" in {name.lower() for name in sent}:
            return body
        return msgspec.json.encode({**sent, "active": True})


SERVICE = DirectoryService(PROVIDER)


def _object_of(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidSyntaxException(detail="The body is not valid JSON.") from error
    if not isinstance(found, dict):
        raise InvalidSyntaxException(detail="The body is no JSON object.")
    return found


def _is_echo(path: str) -> bool:
    name = path.strip().lower()
    name = name.removeprefix(f"{User.__schema__}:".lower())
    return name == _ECHOED or name.startswith((f"{_ECHOED}[", f"{_ECHOED}."))


def _selecting_by_value(operation: Any) -> Any:
    """A `remove` with values as they are meant: Entra sends `{"$ref": null, "value": …}` of a member that has a `$ref`.

    Compared in all that is sent, as the library does, nobody would be like that, and nobody taken out.
    """
    if not isinstance(operation, dict):
        return operation
    names = {name.lower(): name for name in operation}
    kind, value = operation.get(names.get("op", "op")), operation.get(names.get("value", "value"))
    if not isinstance(kind, str) or kind.lower() != "remove" or not isinstance(value, list):
        return operation
    return {**operation, names["value"]: [_by_value(entry) for entry in value]}


def _by_value(entry: Any) -> Any:
    if not isinstance(entry, dict):
        return entry
    found = {name: each for name, each in entry.items() if name.lower() == "value" and each is not None}
    return found or entry


def _without_echo(operation: Any) -> Any:
    """The operation, or None if nothing is left of it."""
    if not isinstance(operation, dict):
        return operation
    names = {name.lower(): name for name in operation}
    path = operation.get(names.get("path", "path"))
    if isinstance(path, str):
        return None if _is_echo(path) else operation
    value = operation.get(names.get("value", "value"))
    if not isinstance(value, dict):
        return operation
    kept = {name: each for name, each in value.items() if not _is_echo(name)}
    if value and not kept:
        return None
    return {**operation, names["value"]: kept}


def _require_short(operations: list[Any]) -> None:
    for operation in operations:
        if not isinstance(operation, dict):
            continue
        for name, value in operation.items():
            told = [value] if name.lower() == "path" else list(value) if isinstance(value, dict) else []
            if any(isinstance(each, str) and len(each) > LONGEST_EXPRESSION for each in told):
                raise InvalidValueException(detail=f"path: expected at most {LONGEST_EXPRESSION} characters")
