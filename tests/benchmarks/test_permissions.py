"""What the benchmark of permissions shows of its figures, and that the statement it compares with is the real one."""

from __future__ import annotations

import io

from rich.console import Console

from benchmarks.permissions import _WITHOUT_GRANTS, Found, table
from tenantry.domain.identity.principal import _PRINCIPAL


def test_the_medians_of_the_rounds_are_shown() -> None:
    slow = Found([900.0, 1000.0, 5000.0], [10.0, 2000.0, 3000.0], [1.0, 2.0, 9.0], [3.0, 4.0, 9.0], [5.0, 6.0, 9.0])
    console = Console(width=120, file=io.StringIO())
    with console.capture() as captured:
        console.print(table({"read": slow}))
    for figure in ("1,000 µs", "2,000/s", "2 µs", "4 µs", "6 µs"):
        assert figure in captured.get()


def test_what_the_cache_would_leave_to_the_database_is_the_principal_without_its_grants() -> None:
    """The conditions that must count at once are the same in both."""
    assert (
        _WITHOUT_GRANTS.partition("  FROM user_session")[2].strip()
        == _PRINCIPAL.rpartition("  FROM user_session")[2].strip()
    )
