"""n8n-scraper: what its page says is proven on the database as its graph makes it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbplatform.migrations.engine import apply_migrations
from dbplatform.orchestration.cadences import work_of
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.pools import pool_settings
from dbplatform.seeding.bulk import upsert_rows
from dbplatform_tests.postgres.archiving_support import archive, restore
from dbplatform_tests.postgres.test_five_systems import migrations
from dbplatform_tests.systems.conftest import System
from dbplatform_tests.systems.plans import benchmark, planned
from dbplatform_tests.systems.watching import told
from dbplatform_tests.typed import Type

#: Seven more of each, so that the statistics of the four tables are behind.
MORE = """
    insert into workflows (workflow_id, title, created_at)
        select 'more ' || n, 'more', now() from generate_series(1, 7) n;
    insert into workflow_node_contexts (workflow_id, workflow_created_at, node_id, node_type)
        select workflow_id, created_at, 'Gmail', 'gmail' from workflows where title = 'more';
    insert into workflow_standalone_docs (workflow_id, workflow_created_at, content)
        select workflow_id, created_at, 'a note' from workflows where title = 'more';
    insert into workflow_extraction_snapshots
        (workflow_id, workflow_created_at, layer, succeeded, duration_ms, payload)
        select workflow_id, created_at, 1, true, 5, '{}' from workflows where title = 'more';
"""
CHILDREN = ("workflow_node_contexts", "workflow_standalone_docs", "workflow_extraction_snapshots")


def answer(session: psycopg.Connection[Any], query: str, *values: Any) -> Any:
    row = session.execute(query.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


def rows(session: psycopg.Connection[Any], table: str) -> int:
    [(number,)] = session.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table)))
    return int(number)


def test_fields_are_renamed_with_all_that_they_held(database: Target) -> None:
    policy, folders = migrations("n8n_scraper")
    with connect(database, work="test") as connection:
        apply_migrations(connection, folders, policy, target="1")
        connection.execute("insert into workflows (workflow_id, name) values ('1', 'Send a mail')")
        connection.execute(
            "insert into workflow_node_contexts (workflow_id, node_name, node_type) values ('1', 'Gmail', 'gmail')"
        )
        connection.execute("insert into workflow_standalone_docs (workflow_id, content) values ('1', 'a note')")
        apply_migrations(connection, folders, policy, target="3")
        for query, kept in (
            ("select title from workflows", "Send a mail"),
            ("select node_id from workflow_node_contexts", "Gmail"),
            ("select doc_id from workflow_standalone_docs", 1),
        ):
            row = connection.execute(query.encode()).fetchone()
            assert row == (kept,), query


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("waiting_for_a_layer", "idx_workflows_extraction_status"),
        ("contexts_of_a_workflow", "idx_node_contexts_workflow_id"),
        ("by_metadata", "idx_workflows_metadata_gin"),
        ("search", "idx_workflows_search"),
        ("select workflow_id from workflows where created_at > now() - interval '1 day'", "idx_workflows_created_at"),
        (
            "select id from workflow_node_contexts where node_position @> '[250]'",
            "idx_node_contexts_position_gin",
        ),
    ],
)
def test_each_index_serves_the_query_that_it_was_asked_for(
    system: System, session: psycopg.Connection[Any], query: str, index: str
) -> None:
    declared = benchmark(system.declaration, query, session) if " " not in query else (query, {})
    assert index in planned(session, *declared).indexes


def test_nothing_refers_to_a_workflow_that_is_not_there(session: psycopg.Connection[Any]) -> None:
    orphans = """
        select count(*) from {} c where not exists (
            select from workflows w where (w.workflow_id, w.created_at) = (c.workflow_id, c.workflow_created_at))
    """
    for table in CHILDREN:
        assert (rows(session, table) > 0, answer(session, orphans.format(table))) == (True, 0)
        orphaned = sql.SQL("update {} set workflow_id = 'nobody'").format(sql.Identifier(table))
        with pytest.raises(psycopg.errors.ForeignKeyViolation), session.transaction():
            session.execute(orphaned)
    session.execute("delete from workflows")
    assert [rows(session, table) for table in CHILDREN] == [0, 0, 0]


def test_a_pool_of_150_is_told_where_its_server_has_fewer_connections(system: System, command: Type) -> None:
    declared = system.declaration.connection
    settings = pool_settings(declared.environment, declared.pool)
    assert (settings.size, settings.max_overflow, settings.timeout_s) == (50, 100, 60)
    assert (settings.recycle_s, settings.pre_ping) == (1800, True)
    beside = system.project / "defs" / "beside" / "defs.yaml"
    beside.parent.mkdir()
    beside.write_text(
        "type: dbplatform.ManagedDatabase\nattributes:\n  name: beside\n"
        "  connection: {url_env: SYSTEM_URL, pool: {size: 50, max_overflow: 0}}\n"
    )
    try:
        found = command("doctor", "n8n_scraper", "--json").json["findings"]
    finally:
        beside.unlink()
        beside.parent.rmdir()
    [pools] = [one for one in found if one["probe"] == "pools"]
    assert pools["status"] == "warn"
    assert "150 of n8n_scraper" in pools["message"]


def test_a_batch_of_workflows_goes_in_at_once_and_a_second_time_changes_nothing(
    session: psycopg.Connection[Any],
) -> None:
    some = "select workflow_id, created_at, url from workflows where url is not null order by 1 limit 50"
    known = session.execute(some).fetchall()
    changed = [(name, at, f"{url}?seen") for name, at, url in known]
    new = [(f"new {n}", datetime(2025, 6, 1, tzinfo=UTC) + timedelta(hours=n), "https://x.org") for n in range(50)]
    before = answer(session, "select count(*) from workflows")
    columns = ["workflow_id", "created_at", "url"]
    assert upsert_rows(session, "public.workflows", [*changed, *new], columns=columns).written == 100
    assert answer(session, "select count(*) from workflows") == before + 50
    assert upsert_rows(session, "public.workflows", [*changed, *new], columns=columns).written == 0


def test_what_may_never_come_in_is_refused(session: psycopg.Connection[Any]) -> None:
    for change in (
        "update workflows set url = 'javascript:alert(1)'",
        "update workflows set views = -1",
        "update workflows set unified_extraction_success = true, layer2_scraped = false",
        "update workflow_node_contexts set node_position = '{}'",
    ):
        with pytest.raises(psycopg.errors.CheckViolation), session.transaction():
            session.execute(change.encode())


def test_a_plain_table_cannot_get_partitions_and_the_converted_one_has_those_of_the_document(
    session: psycopg.Connection[Any],
) -> None:
    session.execute("create table plain (like workflows)")
    with pytest.raises(psycopg.Error, match="is not partitioned"), session.transaction():
        session.execute("create table plain_2024 partition of plain for values from ('2024-01-01') to ('2025-01-01')")
    bounds = "select pg_get_expr(relpartbound, oid) from pg_class where relname = %s"
    for year in (2024, 2025):
        bound = f"FOR VALUES FROM ('{year}-01-01 00:00:00+00') TO ('{year + 1}-01-01 00:00:00+00')"
        assert answer(session, bounds, f"workflows_{year}") == bound
    now = "select tableoid::regclass::text from workflows where workflow_id = 'now'"
    for later in ("0 days", "12 months"):
        session.execute(
            "insert into workflows (workflow_id, created_at) values ('now', now() + %s::interval)", (later,)
        )
        assert answer(session, now).startswith("workflows_")
        session.execute("delete from workflows where workflow_id = 'now'")


def test_queries_of_a_year_read_that_partition_alone(session: psycopg.Connection[Any]) -> None:
    query = "explain select * from workflows where created_at >= '2024-03-01' and created_at < '2024-04-01'"
    plan = "\n".join(row[0] for row in session.execute(query))
    assert "workflows_2024" in plan
    assert "workflows_2025" not in plan


def test_snapshots_of_half_a_year_leave_as_files_and_come_back(system: System, tmp_path: Path) -> None:
    [policy] = [one for one in system.declaration.archives if one.name == "old_snapshots"]
    now = datetime.now(UTC)
    old = "select count(*) from workflow_extraction_snapshots where created_at < %s::timestamptz - interval '6 months'"
    with psycopg.connect(system.target.url, autocommit=True) as session:
        expected = answer(session, old, now)
        report = archive(system.target, system.ledger, tmp_path, policy, now=now)
        assert report.deleted == expected > 0
        assert answer(session, old, now) == 0
        restore(system.target, system.ledger, report.archives[0].id)
        assert answer(session, old, now) == expected


def test_the_views_of_the_document_tell_rows_and_what_is_missing(session: psycopg.Connection[Any]) -> None:
    session.execute("update workflows set url = null where workflow_id in (select workflow_id from workflows limit 3)")
    counted = "select count(*) filter (where title is null), count(*) filter (where url is null) from workflows"
    missing = session.execute(counted.encode()).fetchone()
    assert missing is not None
    assert missing[1] >= 3
    assert session.execute("select missing_titles, missing_urls from data_quality_metrics").fetchone() == missing
    session.execute("select pg_stat_force_next_flush()")
    told = {row[0]: row[1:] for row in session.execute("select * from database_performance")}
    assert {"workflows_2024", "workflows_2025", *CHILDREN} <= told.keys()
    wrong = """
        select count(*) from workflow_extraction_summary s where node_context_count <>
        (select count(*) from workflow_node_contexts c where c.workflow_id = s.workflow_id)
    """
    assert answer(session, wrong) == 0


def test_maintenance_archives_refreshes_statistics_and_deletes_no_snapshot(session: psycopg.Connection[Any]) -> None:
    kept = """
        select (select count(*) from workflow_extraction_snapshots)
               + (select coalesce(sum(jsonb_array_length(extraction_snapshots)), 0) from workflows_archive)
    """
    session.execute(MORE)

    def behind() -> list[str]:
        counted = "select reltuples::bigint from pg_class where relname = %s"
        return [table for table in ("workflows", *CHILDREN) if answer(session, counted, table) != rows(session, table)]

    assert behind() == ["workflows", *CHILDREN]
    before = answer(session, kept)
    session.execute("select perform_maintenance()")
    assert answer(session, "select count(*) from workflows_archive") > 0
    assert answer(session, kept) == before
    assert behind() == []


def test_its_care_comes_by_itself_and_begins_where_it_is_due(system: System) -> None:
    declared = system.declaration
    daily = {work.asset for work in work_of(declared, "daily")}
    assert declared.maintenance.daily
    assert {"maintenance/analyze", "maintenance/vacuum", "archive/*", "quality_report", "alerts"} <= daily
    assert declared.on_breach == {
        "analyze_due_tables": "maintenance/analyze",
        "dead_tuple_ratio": "maintenance/vacuum",
    }
    assert {one.name: str(one.keep) for one in declared.archives if one.keep} == {"old_snapshots": "24 months"}


def test_a_missing_title_is_found_and_its_share_is_watched(system: System, command: Type) -> None:
    found = command("check", "n8n_scraper", "--table", "public.workflows", "--json").json
    checks = {check["name"]: check for check in found["tables"][0]["checks"]}
    with psycopg.connect(system.target.url) as session:
        missing = answer(session, "select missing_titles from data_quality_metrics")
    assert (checks["not_null_title"]["status"], checks["not_null_title"]["failed_rows"]) == ("failed", missing)
    assert checks["not_null_title"]["severity"] == "warn"
    assert json.dumps(found).count("anomaly") >= 2


def test_how_far_a_workflow_is_scraped_is_told_to_who_watches(system: System) -> None:
    changed = "update workflows set layer2_scraped = true where workflow_id = (select min(workflow_id) from workflows)"
    [row] = told(system, changed)["public.workflows"].rows
    assert row["layer2_scraped"] is True
    assert "metadata" not in row
