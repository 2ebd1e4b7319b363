"""Services after Advanced Alchemy's pattern, their providers, and the query of a list."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Generic, Literal, TypeVar

import msgspec
from advanced_alchemy.exceptions import wrap_sqlalchemy_exception
from advanced_alchemy.filters import LimitOffset, OrderBy, SearchFilter
from advanced_alchemy.service import SQLAlchemyAsyncRepositoryService
from litestar import Request
from litestar.di import NamedDependency, Provide
from litestar.params import QueryParameter, SkipValidation
from sqlalchemy.ext.asyncio import AsyncSession

from tenantry.kernel.errors import FieldError, ValidationFailedException
from tenantry.kernel.schema import MAX_PAGE_SIZE, Page, camel

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from advanced_alchemy.exceptions import ErrorMessages
    from advanced_alchemy.filters import StatementFilter
    from advanced_alchemy.service import LoadSpec
    from sqlalchemy import ColumnElement

__all__ = (
    "Injected",
    "ListQuery",
    "Service",
    "changed_fields",
    "create_list_query",
    "create_service_provider",
    "to_struct",
)

ModelT = TypeVar("ModelT", bound=Any)
ServiceT = TypeVar("ServiceT", bound=SQLAlchemyAsyncRepositoryService[Any, Any])
StructT = TypeVar("StructT", bound=msgspec.Struct)

T = TypeVar("T")
Injected = NamedDependency[SkipValidation[T]]
"""A dependency that is taken as it is: Litestar would otherwise check its type on every request."""


class ListQuery(msgspec.Struct, frozen=True):
    """Which page of a list, in which order, of what."""

    page: int
    page_size: int
    order_by: str
    sort_order: Literal["asc", "desc"]
    search: str | None
    searched: tuple[str, ...]

    def filters(self) -> list[StatementFilter]:
        found: list[StatementFilter] = [
            # The id breaks ties, so that no row is on two pages and none on neither.
            OrderBy(self.order_by, self.sort_order),
            OrderBy("id", self.sort_order),
            LimitOffset(self.page_size, (self.page - 1) * self.page_size),
        ]
        if self.search and self.searched:
            found.append(SearchFilter(set(self.searched), self.search, ignore_case=True, escape_wildcards=True))
        return found


def create_list_query(
    *,
    sortable: Sequence[str],
    searched: Sequence[str],
    default: str,
    descending: bool = False,
    search_elsewhere: bool = False,
    others: Sequence[str] = (),
) -> Provide:
    """The dependency that reads a list's query parameters, documented and checked.

    Args:
        sortable: the model's attributes by which a client may sort; on the wire in camelCase.
        searched: the attributes that `search` looks in, for a substring, whatever the case.
        default: the attribute to sort by when the client does not say.
        descending: the order when the client does not say.
        search_elsewhere: the searched attributes are another model's, and the handler adds the filter itself.
        others: the parameters, in camelCase, that the handler reads itself.
    """
    attributes = {camel(name): name for name in sortable}
    default_order: Literal["asc", "desc"] = "desc" if descending else "asc"
    own = () if search_elsewhere else tuple(searched)

    known = frozenset({"page", "pageSize", "orderBy", "sortOrder", "search", *others})

    def provide_list_query(
        request: Request[Any, Any, Any],
        page: int,
        page_size: int,
        order_by: str,
        sort_order: Literal["asc", "desc"],
        search: str | None = None,
    ) -> ListQuery:
        if unknown := request.query_params.keys() - known:
            # A misspelt `pagesize` would otherwise be a page of another size, in silence.
            message = f"There is no such parameter; expected any of {', '.join(sorted(known))}."
            raise ValidationFailedException(
                errors=[FieldError(field=name, source="query", message=message) for name in sorted(unknown)]
            )
        return ListQuery(page, page_size, attributes[order_by], sort_order, search, own)

    # The names that can be sorted by differ per resource: they are part of the signature, for the documents' sake
    # and so that any other name is refused with the list of them.
    provide_list_query.__annotations__ = {
        "request": Request,
        "page": Annotated[int, QueryParameter(ge=1, le=1_000_000, description="The page, from 1.")],
        "page_size": Annotated[
            int, QueryParameter(name="pageSize", ge=1, le=MAX_PAGE_SIZE, description="Items on a page.")
        ],
        "order_by": Annotated[
            Literal[tuple(attributes)], QueryParameter(name="orderBy", description="What to sort by.")
        ],
        "sort_order": Annotated[Literal["asc", "desc"], QueryParameter(name="sortOrder", description="The direction.")],
        "search": Annotated[
            str | None,
            QueryParameter(min_length=1, max_length=100, description=f"Text to look for in: {', '.join(searched)}."),
        ],
        "return": ListQuery,
    }
    provide_list_query.__defaults__ = (1, 50, camel(default), default_order, None)
    return Provide(provide_list_query, sync_to_thread=False)


class Service(SQLAlchemyAsyncRepositoryService[ModelT, Any], Generic[ModelT]):
    """Base of the services. They never commit: the edge does, once, before the response goes out."""

    async def flush(self) -> None:
        """Write what was changed on loaded models, with this service's error messages.

        Raises:
            advanced_alchemy.exceptions.IntegrityError: the change contradicts what is stored.
        """
        with wrap_sqlalchemy_exception(error_messages=self.repository.error_messages, dialect_name="postgresql"):
            await self.repository.session.flush()

    async def page(
        self,
        query: ListQuery,
        struct: type[StructT],
        *filters: StatementFilter | ColumnElement[bool],
        convert: Callable[[Any, type[StructT]], StructT] | None = None,
        load: LoadSpec | None = None,
    ) -> Page[StructT]:
        """One page of a list as structs.

        `convert` makes a struct of a row where its fields are not all attributes of the model.
        """
        rows, total = await self.get_many_and_count(
            *query.filters(), *filters, count_with_window_function=False, load=load
        )
        make = convert or to_struct
        return Page(items=[make(row, struct) for row in rows], total=total, page=query.page, page_size=query.page_size)


def to_struct(row: Any, struct: type[StructT]) -> StructT:
    """A struct of a model's attributes of the same names, nested relationships included."""
    return msgspec.convert(row, struct, from_attributes=True)


def changed_fields(row: Any, changes: Mapping[str, Any]) -> list[str]:
    """Which of the changes are any, in their order: those that give a model's attribute another value."""
    return [name for name, value in changes.items() if getattr(row, name) != value]


def create_service_provider(
    service: type[ServiceT],
    *,
    load: LoadSpec | None = None,
    uniquify: bool | None = None,
    error_messages: ErrorMessages | None = None,
) -> Provide:
    """The dependency that makes a service on the request's session.

    Advanced Alchemy has one of the same name, which is a generator: Litestar would end it side by side with the
    session's, so that the commit ran inside a task group and a failure came out as an ExceptionGroup.
    """

    messages = _by_state(error_messages or {})

    async def provide(db_session: NamedDependency[SkipValidation[AsyncSession]]) -> ServiceT:
        return service(session=db_session, load=load, uniquify=uniquify, error_messages=messages)

    provide.__annotations__ = {"db_session": NamedDependency[SkipValidation[AsyncSession]], "return": service}
    return Provide(provide)


_KEYS = {"23505": "duplicate_key", "23503": "foreign_key", "23514": "check_constraint"}


def _by_state(messages: ErrorMessages) -> ErrorMessages:
    """Choose a message by SQLSTATE.

    Advanced Alchemy tells a duplicate key by the text of the driver's message, and expects psycopg's, with a second
    line that asyncpg does not write: every violation would be `integrity`.
    """
    general = messages.get("integrity", "The change contradicts what is stored.")

    def choose(error: Exception) -> str:
        state = getattr(getattr(error, "orig", None), "sqlstate", None)
        message = messages.get(_KEYS.get(str(state), ""), general)
        return message(error) if callable(message) else str(message)

    return {**messages, "integrity": choose}
