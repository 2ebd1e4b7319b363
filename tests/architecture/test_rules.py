from __future__ import annotations

import ast
from collections.abc import Callable

import pytest

from tests.architecture.rules import (
    EXEMPT,
    ROOT,
    SOURCE_RULES,
    TENANT_MIGRATION_RULES,
    Found,
    Source,
    broad_silence,
    composed_sql,
    describe,
    ends_transaction,
    imports_inside_function,
    python_files,
    raw_redis_key,
    undocumented_handler,
    unsafe_column_type,
)

Rule = Callable[[Source], Found]


def _name(rule: object) -> str:
    return getattr(rule, "__name__", "")


@pytest.fixture(scope="module")
def sources() -> list[Source]:
    found = [Source.read(path) for path in python_files("src", "migrations")]
    assert len(found) > 50
    return found


@pytest.mark.parametrize("rule", SOURCE_RULES, ids=_name)
def test_the_sources_keep_the_rule(sources: list[Source], rule: Rule) -> None:
    assert [line for source in sources for line in describe(source, rule)] == []


@pytest.mark.parametrize("rule", TENANT_MIGRATION_RULES, ids=_name)
def test_the_tenants_migrations_keep_the_rule(sources: list[Source], rule: Rule) -> None:
    migrations = [source for source in sources if source.path.startswith("migrations/tenant/")]
    assert migrations
    assert [line for source in migrations for line in describe(source, rule)] == []


@pytest.mark.parametrize("rule", EXEMPT, ids=_name)
def test_an_exemption_that_is_no_longer_needed_is_gone(rule: Rule) -> None:
    for path in EXEMPT[rule]:
        renamed = Source("src/tenantry/domain/elsewhere.py", ast.parse((ROOT / path).read_text(encoding="utf-8")))
        assert describe(renamed, rule), f"{path} needs no exemption from {_name(rule)}"


CAUGHT: list[tuple[Rule, str]] = [
    (ends_transaction, "async def f(session):\n    await session.commit()"),
    (ends_transaction, "async def f(self):\n    await self.repository.session.rollback()"),
    (ends_transaction, "async def f(service):\n    await service.create({}, auto_commit=True)"),
    (raw_redis_key, "async def f(redis, id):\n    await redis.get(f'session:{id}')"),
    (raw_redis_key, "async def f(self):\n    await self._redis.set('leader', 1)"),
    (raw_redis_key, "async def f(pipeline, id):\n    pipeline.incr('n:' + id)"),
    (raw_redis_key, "KEY = '{t:0}:cache'"),
    (raw_redis_key, "def f(tenant_id):\n    return f'{{t:{tenant_id}}}:cache'"),
    (imports_inside_function, "def f():\n    from tenantry.asgi import create_app"),
    (imports_inside_function, "class A:\n    async def f(self):\n        import tenantry.kernel"),
    (imports_inside_function, "def f():\n    if True:\n        from tenantry import kernel"),
    (broad_silence, "try:\n    f()\nexcept Exception:\n    pass"),
    (broad_silence, "try:\n    f()\nexcept:\n    ..."),
    (broad_silence, "for x in y:\n    try:\n        f()\n    except (ValueError, BaseException):\n        continue"),
    (broad_silence, "import contextlib\nwith contextlib.suppress(Exception):\n    f()"),
    (composed_sql, "async def f(c, name):\n    await c.fetch(f'SELECT * FROM {name}')"),
    (composed_sql, "async def f(c, name):\n    await c.execute('SELECT * FROM ' + name)"),
    (composed_sql, "async def f(c, name):\n    await c.execute('SELECT * FROM %s' % name)"),
    (composed_sql, "async def f(c, name):\n    await c.fetchval('SELECT * FROM {}'.format(name))"),
    (composed_sql, "def f(name):\n    statement = f'DELETE FROM team WHERE name = {name!r}'"),
    (composed_sql, "from sqlalchemy import text\ndef f(name):\n    return text(f'{name} = 1')"),
    (undocumented_handler, "from litestar import get\n@get('/')\nasync def f() -> None:\n    '''It does.'''"),
    (undocumented_handler, "from litestar import get\n@get('/', operation_id='F', summary='F')\nasync def f(): ..."),
    (
        undocumented_handler,
        "from litestar import post\nclass C:\n    @post(summary='F')\n    def f(self):\n        '''F.'''",
    ),
]


@pytest.mark.parametrize(("rule", "text"), CAUGHT, ids=lambda value: _name(value) or None)
def test_a_violation_is_caught(rule: Rule, text: str) -> None:
    assert len(describe(Source.of(text), rule)) == 1


ALLOWED: list[tuple[Rule, str]] = [
    (ends_transaction, "async def f(session):\n    await session.flush()"),
    (ends_transaction, "async def f(service):\n    await service.create({}, auto_commit=False)"),
    (raw_redis_key, "async def f(redis, tenant):\n    await redis.get(tenant_key(tenant, 'session', id))"),
    (raw_redis_key, "def f(headers):\n    return headers.get('host')"),
    (imports_inside_function, "from tenantry.kernel import x\ndef f():\n    import math"),
    (imports_inside_function, "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from tenantry.kernel import x"),
    (broad_silence, "try:\n    f()\nexcept Exception as error:\n    log(error)"),
    (broad_silence, "try:\n    f()\nexcept KeyError:\n    pass"),
    (composed_sql, "async def f(c, name):\n    await c.fetch('SELECT * FROM team WHERE name = $1', name)"),
    (composed_sql, "SCHEMA = 'platform'\nasync def f(c):\n    await c.fetch(f'SELECT * FROM {SCHEMA}.team')"),
    (composed_sql, "def f(slug):\n    raise KeyError(f'There is no organization {slug!r}')"),
    (
        undocumented_handler,
        "from litestar import get\n@get('/', operation_id='F', summary='F')\nasync def f():\n    '''It does.'''",
    ),
    (undocumented_handler, "import functools\n@functools.cache\ndef get():\n    return 1"),
]


@pytest.mark.parametrize(("rule", "text"), ALLOWED, ids=lambda value: _name(value) or None)
def test_what_is_right_is_left_alone(rule: Rule, text: str) -> None:
    assert describe(Source.of(text), rule) == []


@pytest.mark.parametrize(
    "text",
    [
        "sa.Column('name', sa.String(50))",
        "sa.Column('name', sa.String())",
        "sa.Column('name', sa.Unicode)",
        "sa.Column('kind', sa.Enum('a', 'b', name='kind'))",
        "sa.Column('kind', postgresql.ENUM('a', 'b', name='kind'))",
        "op.alter_column('team', 'name', type_=sa.Text())",
        "op.execute('ALTER TABLE team ALTER COLUMN name TYPE text')",
        "op.execute('ALTER TABLE team ALTER name SET NOT NULL, ALTER COLUMN name SET DATA TYPE bigint')",
        "op.execute('CREATE TYPE kind AS ENUM (1)')",
        "op.execute('create domain slug as text')",
        "op.execute('ALTER TABLE team ADD COLUMN code varchar(10)')",
    ],
)
def test_a_type_that_a_tenants_schema_may_not_have_is_caught(text: str) -> None:
    assert len(describe(Source.of(text, "migrations/tenant/versions/0002_x.py"), unsafe_column_type)) == 1


def test_a_column_of_text_and_a_new_default_are_left_alone() -> None:
    text = "sa.Column('name', sa.Text())\nop.alter_column('team', 'name', nullable=False, existing_type=sa.Text())"
    assert describe(Source.of(text, "migrations/tenant/versions/0002_x.py"), unsafe_column_type) == []
