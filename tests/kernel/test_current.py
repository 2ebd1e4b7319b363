"""What a process has one of."""

from __future__ import annotations

import pytest

from tenantry.kernel.current import Current


def test_what_nobody_has_set_is_asked_for_with_a_clear_error() -> None:
    with pytest.raises(RuntimeError, match=r"there is no list of things: the process has to import tenantry\.features"):
        Current[int]("list of things").get()


def test_another_one_is_used_inside_the_block_and_the_first_again_after_it() -> None:
    current = Current[int]("number")
    assert current.use(1) is None
    with pytest.raises(LookupError), current.using(2):  # noqa: PT012 - the block's end is what is tested
        assert current.get() == 2
        raise LookupError
    assert current.get() == 1
    assert current.use(None) == 1
    with pytest.raises(RuntimeError):
        current.get()
