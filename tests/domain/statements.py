"""Which statements the application sends, through the ORM and past it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import asyncpg
from sqlalchemy import event

from tenantry.tenancy.connection import ScopedConnection
from tenantry.tenancy.database import Database

__all__ = ("recorded_statements",)


@contextmanager
def recorded_statements(database: Database) -> Iterator[list[str]]:
    """The statements that the pool's connections run inside the block, transaction verbs included."""
    engine = database.engine.sync_engine
    statements: list[str] = []
    watched: list[ScopedConnection] = []

    def from_orm(_: Any, __: Any, statement: str, *___: Any) -> None:
        statements.append(statement)

    def from_driver(query: asyncpg.connection.LoggedQuery) -> None:
        statements.append(query.query)

    def watch(connection: Any, *_: Any) -> None:
        driver: ScopedConnection = connection.driver_connection
        if driver not in watched:
            watched.append(driver)
            driver.add_query_logger(from_driver)

    event.listen(engine, "before_cursor_execute", from_orm)
    event.listen(engine, "checkout", watch)
    try:
        yield statements
    finally:
        event.remove(engine, "before_cursor_execute", from_orm)
        event.remove(engine, "checkout", watch)
        for driver in watched:
            if not driver.is_closed():
                driver.remove_query_logger(from_driver)
