"""That the comparison with the peer compares like with like, and computes its ratios the right way round."""

from __future__ import annotations

import ast
import datetime as dt
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.peers import report
from benchmarks.peers.measure import COMPARISONS, LINES, Samples, compare, summarize
from benchmarks.peers.run import Options, Result
from benchmarks.peers.shape import (
    PEER_SHAPE,
    Shape,
    add_revision,
    column_revision,
    copy_migrations,
    filler_revision,
    read_shape,
    shape_of,
    use_migrations,
)
from benchmarks.peers.theirs import PROJECT
from tenantry.features import TENANT_METADATA
from tenantry.tenancy.database import owner_engine
from tenantry.tenancy.migrations import compile_script, head
from tests.databases import Template

SAMPLES: Samples = {
    "requests.ours": [[2000.0], [200.0], [400.0]],
    "requests.sync": [[500.0], [50.0], [100.0]],
    "tenants.warm": [[10.0, 30.0, 20.0], [2.0, 2.0, 2.0], [5.0, 5.0, 5.0]],
    "tenants.peer.warm": [[200.0, 220.0, 180.0], [30.0, 20.0, 10.0], [100.0, 100.0, 100.0]],
}


def test_more_requests_and_less_time_are_both_better_than_the_peer() -> None:
    """The machine became ten times slower after the first round: each round's ratio is four times all the same."""
    ratios = {ratio.name: ratio for ratio in compare(SAMPLES)}
    assert set(ratios) == {"a", "a.sync", "b.warm"}
    assert (ratios["a"].ratio, ratios["a"].lower, ratios["a"].upper, ratios["a"].reached) == (4.0, 4.0, 4.0, True)
    assert (ratios["b.warm"].ratio, ratios["b.warm"].lower, ratios["b.warm"].upper) == (10.0, 10.0, 15.0)
    assert ratios["b.warm"].reached is False


def test_aim_is_measured_against_whichever_of_the_peers_configurations_did_best() -> None:
    """By the whole run: gthread was ahead in one round of three."""
    samples: Samples = {
        **SAMPLES,
        "requests.gthread": [[1000.0], [40.0], [90.0]],
        "noop.ours": [[0.1]],
        "noop.standard": [[26.0]],
        "noop.multiprocessing": [[14.0]],
    }
    ratios = {ratio.name: ratio for ratio in compare(samples)}
    assert (ratios["a"].against, ratios["a"].ratio) == ("requests.sync", 4.0)
    assert ratios["a.gthread"].against == "requests.gthread"
    assert ratios["d"].against == "noop.multiprocessing"
    assert ratios["d"].ratio == pytest.approx(140)
    assert "d.standard" in ratios


def test_sides_with_different_numbers_of_rounds_are_not_compared() -> None:
    with pytest.raises(ValueError, match="zip"):
        compare({**SAMPLES, "requests.sync": [[500.0]]})


def test_slow_end_is_reported_of_rates_and_of_durations() -> None:
    lines = {line.line: line for line in summarize(SAMPLES)}
    assert (lines["requests.ours"].median, lines["requests.ours"].p95) == (400.0, 200.0)
    assert (lines["tenants.warm"].median, lines["tenants.warm"].p95, lines["tenants.warm"].samples) == (5.0, 30.0, 9)


def test_every_comparison_is_of_lines_that_are_measured_in_the_same_unit() -> None:
    units = {line.name: line.unit for line in LINES}
    for comparison in COMPARISONS:
        assert {units[name] for name in comparison.theirs} == {units[comparison.ours]}
    assert {comparison.name: comparison.aim for comparison in COMPARISONS if comparison.aim} == {
        "a": 3,
        "b.warm": 30,
        "c": 10,
        "d": 100,
    }


@pytest.mark.parametrize("missing", [Shape(5, 22, 5, 1), Shape(1, 9, 4, 3), Shape(0, 2, 0, 0), Shape(-2, -3, 1, 1)])
def test_filler_makes_no_more_than_is_missing(missing: Shape) -> None:
    have = PEER_SHAPE - missing
    _, source = filler_revision(have, PEER_SHAPE, after="0001")
    calls = [node.func.attr for node in ast.walk(ast.parse(source)) if _is_operation(node)]  # type: ignore[attr-defined]
    tables, uniques = calls.count("create_table"), calls.count("create_unique_constraint")
    assert tables == max(0, missing.tables)
    indexes = calls.count("create_index") + tables + uniques
    assert (indexes, calls.count("create_foreign_key"), uniques) == (
        max(0, missing.indexes),
        # Without a new table there is nothing to hang a constraint on.
        max(0, missing.foreign_keys) if tables else 0,
        max(0, missing.uniques) if tables else 0,
    )


def _is_operation(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "op"
    )


async def test_tree_with_its_filler_has_the_peers_shape(database_addresses: Template, tmp_path: Path) -> None:
    before = head("tenant")
    folder = copy_migrations(
        tmp_path / "migrations", [filler_revision(shape_of(TENANT_METADATA), PEER_SHAPE, after=before)]
    )
    add_revision(folder, *column_revision(1, after="bench_shape"))
    engine = owner_engine(database_addresses.owner_url)
    try:
        with use_migrations(folder):
            assert head("tenant") == "bench_01"
            script = compile_script("tenant")
        async with engine.connect() as connection:
            driver = (await connection.get_raw_connection()).driver_connection
            assert driver is not None
            await driver.execute(f"CREATE SCHEMA shaped; SET search_path TO shaped; {script}")
            found = await read_shape(driver, "shaped")
            await driver.execute("DROP SCHEMA shaped CASCADE")
    finally:
        await engine.dispose()
    # The one revision's index is more; where the product has more than the peer, it stays.
    own = shape_of(TENANT_METADATA)
    expected = Shape(*(max(getattr(own, name), getattr(PEER_SHAPE, name)) for name in Shape.__struct_fields__))
    assert found - Shape(0, 1, 0, 0) == expected
    assert head("tenant") == before


def test_peer_is_pinned_with_hashes_and_without_an_address() -> None:
    lines = (PROJECT / "requirements.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith(" ")]
    assert {"django-tenants==4.0.1 \\", "gunicorn==27.0.1 \\"} <= set(pinned)
    assert all("==" in line and line.endswith("\\") for line in pinned)
    assert all(line.strip().startswith("--hash=sha256:") for line in lines if line.startswith(" "))
    assert not any(word in line for line in lines for word in ("/", "--index", "--find"))


def test_report_says_what_was_measured_and_which_aims_were_missed(tmp_path: Path) -> None:
    shapes = {"product": Shape(10, 27, 9, 10), "measured": PEER_SHAPE, "peer": PEER_SHAPE}
    result = Result(
        at=dt.datetime(2026, 11, 23, tzinfo=dt.UTC),
        options=Options(),
        client="wrk",
        machine={"cores": 2, "cpu": "a CPU"},
        versions={"python": "3.11", "postgres": "18.6"},
        peer_versions={"django-tenants": "4.0.1", "django": "5.2", "psycopg": "3.3", "gunicorn": "27.0"},
        settings={},
        shapes=shapes,
        summaries=summarize(SAMPLES),
        ratios=compare(SAMPLES),
        samples=SAMPLES,
    )
    console = Console(width=200, record=True, file=(tmp_path / "shown").open("w"))
    console.print(report.headline(result))
    console.print(report.shapes(result))
    for table in report.tables(result):
        console.print(table)
    shown = console.export_text()
    console.file.close()
    for text in ("django-tenants 4.0.1", "Tenantry's own has 10 tables", "3 reached", "30 missed", "10.0-15.0"):
        assert text in shown
    assert "not the same" not in report.shapes(result)
    document, plot = report.write(result, tmp_path)
    assert (document.name, plot.name) == ("peers-20261123T000000Z.json", "peers-20261123T000000Z.png")
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert b'"ratio": 4.0' in document.read_bytes()
