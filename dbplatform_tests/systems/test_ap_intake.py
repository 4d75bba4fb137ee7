"""AP Intake: what its page says is proven on the database as its graph makes it."""

from __future__ import annotations

import uuid
from collections import defaultdict
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient

from dbplatform.monitoring.kind import Severity
from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.thresholds import judge
from dbplatform.orchestration.cadences import Cadence, work_of
from dbplatform.postgres.pools import PROFILES, DatabasePool, pool_settings
from dbplatform.web.app import create_app
from dbplatform.web.location import Location
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.systems.conftest import System
from dbplatform_tests.systems.plans import benchmark, planned
from dbplatform_tests.systems.watching import told
from dbplatform_tests.typed import Type


def test_the_pool_keeps_25_connections_opens_up_to_75_and_counts_them(system: System) -> None:
    declared = system.declaration.connection
    settings = pool_settings(declared.environment, declared.pool)
    assert (settings.size, settings.max_overflow, settings.most) == (25, 50, 75)
    assert (settings.timeout_s, settings.recycle_s, settings.pre_ping) == (30, 3600, True)
    assert len({PROFILES[name].most for name in ("test", "staging", "production")}) == 3, "each environment has its own"
    pool = DatabasePool(system.target, settings)
    try:
        with ExitStack() as taken:
            for _ in range(27):
                taken.enter_context(pool.connection())
            assert pool.statistics.used_ratio == 27 / 75
        found = pool.statistics
        assert (found.opened, found.most_in_use, found.idle) == (27, 27, 25)
    finally:
        pool.close()


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("file_that_came_twice", "idx_invoices_file_hash_created"),
        ("work_list", "idx_invoices_workflow_status_created"),
        ("invoices_of_a_vendor", "idx_invoices_vendor_created_status"),
        (
            "select id from exceptions where resolved_at is null and created_at < now() - interval '7 days'",
            "idx_exceptions_resolved_created",
        ),
        (
            "select created_at, (confidence_json ->> 'overall')::double precision from invoice_extractions"
            " where created_at > now() - interval '7 days'",
            "idx_extractions_created_confidence",
        ),
        (
            "select count(*) from validations where passed and created_at > now() - interval '1 month'",
            "idx_validations_passed_created",
        ),
        (
            "select id from staged_exports where status = 'staged' order by created_at",
            "idx_staged_exports_status_created",
        ),
    ],
)
def test_each_of_the_seven_indexes_serves_the_query_that_it_was_asked_for(
    system: System, session: psycopg.Connection[Any], query: str, index: str
) -> None:
    declared = benchmark(system.declaration, query, session) if " " not in query else (query, {})
    plan = planned(session, *declared, in_order="order by" in declared[0])
    assert plan.indexes == {index}
    assert "Sort" not in plan.nodes


def test_confidence_by_day_is_one_query_and_what_a_loop_over_all_of_them_would_find(
    system: System, session: psycopg.Connection[Any]
) -> None:
    days = defaultdict(list)
    for at, confidence in session.execute("select created_at, confidence_json from invoice_extractions"):
        days[at.date()].append(float(confidence["overall"]))
    looped = {day: sum(some) / len(some) for day, some in days.items()}
    summed = {day.date(): mean for day, mean in session.execute(benchmark_of(system, "confidence_by_day"))}
    assert summed == pytest.approx(looped)
    assert len(summed) > 10


def benchmark_of(system: System, name: str) -> bytes:
    assert system.declaration.benchmarks is not None
    [query] = [one.sql for one in system.declaration.benchmarks.queries if one.name == name]
    assert query is not None
    return query.encode()


def test_the_views_name_an_index_that_nothing_used_and_the_size_of_each_table(
    session: psycopg.Connection[Any],
) -> None:
    session.execute("create index one_more on vendors (country)")
    unused = {row[0]: row[1] for row in session.execute("select indexname, index_bytes from unused_indexes")}
    assert unused["one_more"] > 0
    assert "vendors_pkey" not in unused, "a constraint needs it"
    sizes = {row[0]: row[1:] for row in session.execute("select tablename, total_bytes, table_bytes from table_sizes")}
    assert sizes["invoices"][0] > sizes["invoices"][1] > 0


def test_busy_tables_are_vacuumed_and_analyzed_earlier_than_others(session: psycopg.Connection[Any]) -> None:
    set_ = dict(session.execute("select relname, reloptions from pg_class where reloptions is not null").fetchall())
    earlier = ["autovacuum_vacuum_scale_factor=0.05", "autovacuum_analyze_scale_factor=0.02"]
    for table in ("invoices", "invoice_extractions", "validations", "exceptions", "staged_exports"):
        assert sorted(set_[table]) == sorted(earlier), table


@pytest.mark.parametrize(
    ("metric", "value", "severity"),
    [
        ("health_score", 80, None),
        ("health_score", 79, "warning"),
        ("health_score", 59, "critical"),
        ("slow_statement_s", 0.9, None),
        ("slow_statement_s", 1.1, "warning"),
        ("connections_used_ratio", 0.79, None),
        ("connections_used_ratio", 0.81, "warning"),
        ("pool_used_ratio", 0.81, "warning"),
    ],
)
def test_alerts_begin_at_the_numbers_of_the_document(
    system: System, metric: str, value: float, severity: Severity | None
) -> None:
    found = Metric(name=metric, value=value, unit=kind_of(metric).unit, sample=1_000)
    metrics = Metrics(database="ap_intake", at=datetime.now(UTC), values={metric: found})
    [judgement] = judge(metrics, [one for one in system.declaration.thresholds if one.metric == metric]).judged
    assert judgement.severity == severity


def test_the_six_addresses_of_the_document_answer(system: System, command: Type, tmp_path: Path) -> None:
    score = command("health", "ap_intake", "--json").json["score"]
    command("advise", "list", "ap_intake")
    location = Location(names=("ap_intake",))
    with TestClient(create_app(system.ledger, tmp_path, location=location)) as client:
        for what, part in (
            ("health", "deductions"),
            ("metrics", "metrics"),
            ("connections", "active"),
            ("slow-queries", "statements"),
            ("dashboard", "series"),
            ("recommendations", "advice"),
        ):
            answer = client.get(f"/api/v1/database/{what}")
            assert (answer.status_code, answer.json()["database"]) == (200, "ap_intake"), what
            assert part in answer.json(), what
        assert client.get("/api/v1/database/dashboard").json()["health"]["score"] == score


def test_metrics_have_a_history(command: Type) -> None:
    command("metrics", "ap_intake")
    found = command("metrics", "ap_intake", "--history", "database_bytes", "--json").json
    assert found["history"][-1]["value"] > 0


def test_a_backup_of_the_schema_of_the_rows_and_of_critical_tables_is_made_listed_and_verified(command: Type) -> None:
    for only in (("schema",), ("data",), ("public.invoices", "public.vendor_bank_accounts")):
        made = command("backup", "create", "ap_intake", *(f"--only={part}" for part in only), "--json").json
        assert (made["status"], made["proven_at"]) == ("complete", None)
        verified = command("backup", "verify", "ap_intake", made["id"], "--json").json
        assert (verified["backup_id"], verified["problems"]) == (made["id"], [])
        assert (Path(made["location"]) / "manifest.json").is_file()
    scopes = [one["scope"] for one in command("backup", "list", "ap_intake", "--json").json["backups"]]
    assert scopes[1:] == ["data", "schema"]


def test_backups_come_at_two_and_are_kept_for_30_days_and_the_week_begins_its_care_at_three(system: System) -> None:
    backups, maintenance = system.declaration.backups, system.declaration.maintenance
    assert backups is not None
    assert (backups.logical.schedule, backups.retain.daily) == ("0 2 * * *", 30)
    assert maintenance.weekly == "0 3 * * 0"
    assert backups.physical is not None
    assert backups.physical.wal_archive


@pytest.mark.parametrize(
    ("cadence", "assets"),
    [
        ("daily", {"metrics", "health", "alerts", "quality_report", "maintenance/analyze"}),
        ("weekly", {"maintenance/reindex", "advice"}),
        ("monthly", {"maintenance/statistics", "maintenance/autovacuum", "maintenance/report"}),
        ("quarterly", {"benchmarks", "capacity"}),
    ],
)
def test_each_cadence_of_the_document_has_its_work(system: System, cadence: Cadence, assets: set[str]) -> None:
    assert getattr(system.declaration.maintenance, cadence)
    assert assets <= {work.asset for work in work_of(system.declaration, cadence)}


def test_the_partitions_of_the_audit_log_reach_three_months_ahead(
    command: Type, session: psycopg.Connection[Any]
) -> None:
    [table] = command("partition", "plan", "ap_intake", "--json").json["tables"]
    assert (table["table"], table["create"], table["default_rows"]) == ("public.audit_log", [], 0)
    assert table["horizon_days"] >= 89
    session.execute("""
        insert into audit_log (occurred_at, entity, entity_id, action)
        values (now() + interval '1 minute', 'invoice', gen_random_uuid(), 'received')
    """)
    found = session.execute("select tableoid::regclass::text from audit_log order by occurred_at desc limit 1")
    assert found.fetchone() != ("audit_log",)


def test_the_declared_queries_keep_to_100_ms_as_their_target(system: System) -> None:
    declared = system.declaration.benchmarks
    assert declared is not None
    targets = {one.target.timedelta for one in (*declared.queries, *declared.scripts) if one.target is not None}
    assert targets == {timedelta(milliseconds=100)}
    assert len(declared.queries) == 5


def test_the_security_is_audited(command: Type) -> None:
    found = command("health", "ap_intake", "--security", "--json").json
    assert found["audit"] == "security"
    assert {"tls_not_verified", "md5_password", "login_superuser", "public_write"} <= set(found["examined"])
    mine = [one["rule"] for one in found["findings"] if "public." in one["object"]]
    assert {"public_read", "public_write", "policy_without_row_security", "view_around_row_security"}.isdisjoint(mine)


def test_who_may_see_bank_accounts_is_in_the_review_of_access(system: System, command: Type) -> None:
    clerk = f"clerk_{uuid.uuid4().hex[:8]}"
    assert command("roles", "review", "ap_intake", "--comment", "as it should be", "--by", "ada", "--yes").code == 0
    by_hand(system.target, f"create role {clerk} login", f"grant select on vendor_bank_accounts to {clerk}")
    try:
        found = command("roles", "review", "ap_intake", "--json")
        assert found.code == 1
        assert f"{clerk}: SELECT on table public.vendor_bank_accounts" in found.json["gained"]
        [granted] = [one for one in found.json["grants"] if one["role"] == clerk]
        assert (granted["privileges"], granted["objects"]) == (["SELECT"], ["public.vendor_bank_accounts"])
        assert found.json["last_review"]["by"] == "ada"
    finally:
        by_hand(system.target, f"drop owned by {clerk}", f"drop role {clerk}")


def test_a_new_state_of_an_invoice_is_told_to_who_watches_without_its_amounts(system: System) -> None:
    changed = "update invoices set workflow_state = 'exported' where id = (select min(id::text)::uuid from invoices)"
    found = told(system, changed)
    [row] = found["public.invoices"].rows
    assert row["workflow_state"] == "exported"
    assert row.keys() == {"id", "workflow_state", "status", "created_at"}
