"""RestoreAssist: what its page says is proven on the database as its graph makes it."""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from fastapi.testclient import TestClient
from psycopg import sql

from dbplatform.monitoring.metrics import Metric, Metrics
from dbplatform.monitoring.thresholds import judge
from dbplatform.orchestration.cadences import Cadence, work_of
from dbplatform.partitioning.conversion.errors import CannotConvert
from dbplatform.partitioning.conversion.plan import PHASES, plan_conversion
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import connect
from dbplatform.postgres.pools import DatabasePool, PoolExhausted, pool_settings
from dbplatform.quality.checks.query import Sql
from dbplatform.web.app import create_app
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.archiving_support import archive, content, restore
from dbplatform_tests.postgres.embedded_support import embedded, open_folder
from dbplatform_tests.postgres.test_five_systems import DEFS
from dbplatform_tests.systems.conftest import System
from dbplatform_tests.systems.plans import benchmark, planned
from dbplatform_tests.systems.watching import told
from dbplatform_tests.typed import Type

STRUCTURE = "structure_20_tables_95_indexes_20_foreign_keys"


def count(session: psycopg.Connection[Any], query: str) -> int:
    row = session.execute(query.encode()).fetchone()
    assert row is not None
    return int(row[0])


def rows_of(system: System, name: str) -> bytes:
    """The query of a declared check, whose rows are what is wrong."""
    checks = [check for table in system.declaration.quality for check in table.checks if isinstance(check, Sql)]
    [query] = [check.rows for check in checks if check.name == name]
    return query.encode()


def test_the_structure_is_verified_by_the_catalog_and_again_by_every_run(system: System, command: Type) -> None:
    found = command("health", "restoreassist", "--structure", "--json").json
    assert [found["counts"][what] for what in ("tables", "indexes", "foreign_keys")] == [20, 95, 20]
    assert {"uuid", "jsonb", "timestamp with time zone", "numeric(12,2)"} <= set(found["types"])
    assert [one["name"] for one in found["foreign_keys"] if not (one["indexed"] and one["validated"])] == []
    assert [one for one in found["findings"] if one["severity"] != "notice"] == []
    check = ("check", "restoreassist", "--table", "public.users", "--check", STRUCTURE, "--json")
    assert command(*check).code == 0
    by_hand(system.target, "create index one_more on payments (currency)")
    try:
        [verified] = command(*check).json["tables"][0]["checks"]
    finally:
        by_hand(system.target, "drop index one_more")
    assert (verified["status"], verified["severity"]) == ("failed", "error")


def test_pages_and_sums_are_read_by_indexes_in_their_order(system: System, session: psycopg.Connection[Any]) -> None:
    for name, index in (
        ("page_of_reports", "idx_reports_page"),
        ("page_of_a_status", "idx_reports_page_by_status"),
        ("reports_by_state", "idx_reports_state"),
    ):
        plan = planned(session, *benchmark(system.declaration, name, session), in_order=name.startswith("page"))
        assert plan.indexes == {index}, name
        assert not plan.nodes & {"Sort", "Seq Scan"}, name


def test_no_index_is_missing_or_double_and_two_are_told_that_wider_ones_serve_as_well(command: Type) -> None:
    [found] = command("advise", "list", "restoreassist", "--json").json["databases"]
    assert {(one["kind"], one["subject"]) for one in found["advice"] if "index" in one["kind"]} == {
        ("overlapping_index", "public.idx_device_fingerprints_user_id"),
        ("overlapping_index", "public.idx_subscriptions_status"),
    }


def test_the_pool_opens_connections_when_they_are_needed_twenty_at_most_and_counts_them(system: System) -> None:
    declared = system.declaration.connection
    settings = pool_settings(declared.environment, declared.pool)
    assert (settings.most, settings.timeout_s) == (20, 10)
    pool = DatabasePool(system.target, replace(settings, timeout_s=0.01))
    try:
        assert pool.statistics.opened == 0
        with ExitStack() as taken:
            for _ in range(20):
                taken.enter_context(pool.connection())
            with pytest.raises(PoolExhausted):
                taken.enter_context(pool.connection())
        found = pool.statistics
        assert (found.opened, found.most_in_use, found.in_use, found.refused) == (20, 20, 0, 1)
    finally:
        pool.close()


def test_every_version_can_be_rolled_back_and_the_records_of_its_former_runners_are_kept(
    session: psycopg.Connection[Any],
) -> None:
    files = {file.name for file in (DEFS / "restoreassist" / "migrations").iterdir()}
    assert {f"U{name[1:]}" for name in files if name.startswith("V")} == {name for name in files if name[0] == "U"}
    assert count(session, "select count(*) from _prisma_migrations where finished_at is not null") > 0
    assert count(session, "select count(*) from schema_migrations") > 0


def test_one_document_has_the_whole_report_of_the_performance(system: System, command: Type, tmp_path: Path) -> None:
    measured = command("metrics", "restoreassist", "--worst", "--json").json
    known = measured["metrics"].keys() | measured["absent"].keys() | measured["unmeasured"].keys()
    assert {
        "cache_hit_ratio", "index_hit_ratio", "index_use_ratio", "unused_indexes", "table_bloat_ratio",
        "index_bloat_ratio", "slow_statement_s", "connections_used_ratio", "database_bytes",
    } <= known  # fmt: skip
    score = command("health", "restoreassist", "--json").json["score"]
    with TestClient(create_app(system.ledger, tmp_path)) as client:
        report = client.get("/api/v1/databases/restoreassist/dashboard").json()
    assert report["health"]["score"] == score
    assert {"slow_queries", "connections", "recommendations", "series"} <= report.keys()


def test_the_health_is_a_score_with_its_grade(command: Type) -> None:
    found = command("health", "restoreassist", "--json").json
    lost = sum(one["points"] for one in found["deductions"])
    assert found["score"] == max(0, 100 - lost)
    assert found["grade"] == next(
        g for g, least in zip("ABCDF", (90, 80, 70, 60, 0), strict=True) if found["score"] >= least
    )


def test_an_index_hit_ratio_of_58_per_cent_is_a_warning_and_on_hardly_any_blocks_it_says_nothing(
    system: System,
) -> None:
    limits = [one for one in system.declaration.thresholds if one.metric == "index_hit_ratio"]

    def judged(blocks: float) -> Any:
        value = Metric(name="index_hit_ratio", value=0.58, unit="ratio", sample=blocks)
        return judge(Metrics(database="restoreassist", at=datetime.now(UTC), values={value.name: value}), limits)

    [judgement] = judged(1_000_000).judged
    assert (judgement.severity, judgement.limit) == ("warning", "< 90%")
    empty = judged(200)
    assert (empty.judged, "too few to judge" in empty.not_judged["index_hit_ratio"]) == ((), True)


def test_the_seeds_are_verified_with_their_counts_and_references(command: Type) -> None:
    verified = command("seed", "verify", "restoreassist", "--json")
    assert (verified.code, verified.json["passed"]) == (0, True)
    assert len(verified.json["tables"]) == 20


def test_optimize_has_a_quick_a_full_and_a_health_way(command: Type) -> None:
    health = command("optimize", "health", "restoreassist", "--json").json
    assert {"score", "grade", "items"} <= health.keys()
    assert command("optimize", "quick", "restoreassist", "--now", "--json").code == 0
    full = command("optimize", "full", "restoreassist", "--dry-run", "--json").json
    assert [one for one in full["items"] if one["kind"] in ("analyze", "vacuum")] == [], "quick has done them"


@pytest.mark.parametrize(
    ("cadence", "assets"),
    [
        ("daily", {"metrics", "health", "alerts", "backup", "archive/*", "maintenance/analyze", "maintenance/vacuum"}),
        ("weekly", {"maintenance/reindex", "advice"}),
        ("monthly", {"maintenance/repack", "maintenance/statistics", "maintenance/report"}),
        ("quarterly", {"benchmarks", "capacity"}),
    ],
)
def test_each_cadence_of_the_document_has_its_work(system: System, cadence: Cadence, assets: set[str]) -> None:
    assert getattr(system.declaration.maintenance, cadence)
    own = {"backup"} if system.declaration.backups and system.declaration.backups.logical.schedule else set()
    assert assets - own <= {work.asset for work in work_of(system.declaration, cadence)}


def test_unused_data_leaves_by_its_archive_and_comes_back_and_an_open_event_stays(
    system: System, tmp_path: Path
) -> None:
    [policy] = [one for one in system.declaration.archives if one.name == "old_events"]
    by_hand(system.target, "update webhook_events set processed_at = null where stripe_event_id like '%01'")
    before = content(system.target, "webhook_events")
    report = archive(system.target, system.ledger, tmp_path, policy, now=datetime.now(UTC))
    assert report.deleted > 0
    with psycopg.connect(system.target.url) as session:
        assert count(session, "select count(*) from webhook_events where processed_at is null") > 0
    restore(system.target, system.ledger, report.archives[0].id)
    assert content(system.target, "webhook_events") == before


def test_what_is_secret_is_kept_as_a_hash_alone(session: psycopg.Connection[Any]) -> None:
    for table, column in (
        ("users", "password_hash"),
        ("sessions", "token_sha256"),
        ("trial_tokens", "token_sha256"),
        ("organization_invitations", "token_sha256"),
    ):
        update = sql.SQL("update {} set {} = 'in the clear'").format(sql.Identifier(table), sql.Identifier(column))
        with pytest.raises(psycopg.errors.CheckViolation), session.transaction():
            session.execute(update)


def test_who_guesses_passwords_is_found_in_the_record_of_all_attempts(
    system: System, session: psycopg.Connection[Any]
) -> None:
    guessed = rows_of(system, "nobody_guesses_passwords")
    assert session.execute(guessed).fetchall() == []
    session.execute("""
        insert into auth_attempts (email, ip_address, succeeded, failure_reason)
        select 'ann@example.com', '192.0.2.9', false, 'wrong_password' from generate_series(1, 21)
    """)
    assert [(str(row[0]), row[2]) for row in session.execute(guessed)] == [("192.0.2.9", 21)]


def test_a_table_on_which_nothing_hangs_can_be_partitioned_and_of_reports_it_is_told_what_does(system: System) -> None:
    now = datetime.now(UTC)
    with connect(system.target, work="test") as connection:
        attempts = PartitionPolicy(table="public.auth_attempts", column="attempted_at", interval="1 month")
        phases = plan_conversion(connection, attempts, now=now).phases
        reports = PartitionPolicy(table="public.reports", column="created_at", interval="1 month")
        with pytest.raises(CannotConvert) as refused:
            plan_conversion(connection, reports, now=now)
    assert [phase.name for phase in phases] == list(PHASES)
    assert all(step.lock for phase in phases for step in phase.steps)
    for name in ("reports_report_number_key", "report_line_items_report_id_fkey", "report_photos_report_id_fkey"):
        assert name in str(refused.value), name


def test_a_report_that_is_done_is_told_to_who_watches_without_its_property(system: System) -> None:
    changed = "update reports set title = title || '!' where report_number = (select min(report_number) from reports)"
    [row] = told(system, changed)["public.reports"].rows
    assert row.keys() == {"id", "organization_id", "report_number", "status", "completed_at"}


# The last one: what it backs up is of another server.
def test_on_version_16_it_is_made_filled_checked_backed_up_and_proven(
    command: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = Path(os.environ.get("DBPLATFORM_TEST_SERVERS", REPOSITORY / ".venv"))
    found = list(others.glob("postgres-16/**/bin/postgres"))
    assert len(found) == 1, "make test installs PostgreSQL 16: dbplatform_tests/other_versions.sh"
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(found[0].parent))
    monkeypatch.delenv("DBPLATFORM_PG_PORT", raising=False)
    with open_folder() as folder, embedded(folder / "home", settings={"fsync": "off"}) as server:
        server.start()
        with psycopg.connect(server.url("postgres"), autocommit=True) as session:
            session.execute("create database restoreassist")
            assert session.info.server_version // 10_000 == 16
        monkeypatch.setenv("SYSTEM_URL", server.url("restoreassist"))
        for verb, sub in (("migrate", "apply"), ("seed", "apply"), ("backup", "create")):
            done = command(verb, sub, "restoreassist")
            assert done.code == 0, done.out + done.err
        assert command("check", "restoreassist", "--json").json["verdict"] == "passed"
        assert command("drill", "restoreassist", "--json").json["proven"] is True
        counts = command("health", "restoreassist", "--structure", "--json").json["counts"]
        assert [counts[what] for what in ("tables", "indexes", "foreign_keys")] == [20, 95, 20]
