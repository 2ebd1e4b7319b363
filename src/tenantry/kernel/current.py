"""What a process has one of, set once by whoever may import everything, and asked for by those below."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ("Current",)

T = TypeVar("T")


class Current(Generic[T]):
    """A catalogue that `tenantry.features` makes.

    The services that use it are below the list of features, as routes are not: they cannot import it.
    """

    def __init__(self, what: str) -> None:
        """`what` it is, for the message to whoever forgot to set it."""
        self._what = what
        self._value: T | None = None

    def use(self, value: T | None) -> T | None:
        """Use this one from now on, in this process; returns the one before. `tenantry.features` does so."""
        before, self._value = self._value, value
        return before

    @contextmanager
    def using(self, value: T) -> Iterator[None]:
        """Use another one inside the block: for tests."""
        before = self.use(value)
        try:
            yield
        finally:
            self.use(before)

    def get(self) -> T:
        """The one of this process.

        Raises:
            RuntimeError: nothing has imported `tenantry.features`.
        """
        if self._value is None:
            raise RuntimeError(f"there is no {self._what}: the process has to import tenantry.features")
        return self._value
