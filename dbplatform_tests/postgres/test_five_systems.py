"""The five declared systems on a real server: their documents' names, their undo scripts, their seeds."""

from __future__ import annotations

import gzip
import importlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbplatform.declaration.loading import Declared, load_file
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.migrations.engine import Folders, MigrationPolicy, apply_migrations
from dbplatform.migrations.trials.round_trip import round_trip
from dbplatform.migrations.undo import apply_undo
from dbplatform.partitioning.apply import apply_partitions
from dbplatform.postgres.catalog import content_hash, row_count
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.engine import run_table
from dbplatform.seeding.apply import apply_seed
from dbplatform.seeding.verify import verify_seed
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.installation import REPOSITORY
from dbplatform_tests.postgres.archiving_support import archive, restore

DEFS = REPOSITORY / "dbplatform" / "defs"
SYSTEMS = ("ap_intake", "n8n_scraper", "restoreassist", "scribemed", "scriptsensei")
PROFILES = ("dev", "test", "staging")

#: What each document names; a column as table.column, a function with ().
NAMES = {
    "scriptsensei": """
        prescriptions extraction_results extraction_configs
        prescriptions.status prescriptions.uploaded_at extraction_results.prescription_id
        extraction_results.model_name extraction_results.field_name extraction_configs.is_default
        idx_prescriptions_status idx_prescriptions_uploaded_at idx_extraction_results_prescription_id
        idx_extraction_results_model_name idx_extraction_results_field_name idx_extraction_configs_is_default
    """,
    "scribemed": """
        organizations users sessions audit_logs patients notes slow_queries pg_stat_statements
        organizations.name organizations.status users.email users.first_name users.last_name users.deleted_at
        sessions.user_id sessions.revoked_at audit_logs.user_id audit_logs.created_at
        patients.organization_id patients.last_name patients.status notes.provider_id
        slow_queries.query slow_queries.calls slow_queries.total_exec_time slow_queries.mean_exec_time
        slow_queries.max_exec_time slow_queries.stddev_exec_time slow_queries.rows
        idx_users_email idx_sessions_user_active idx_audit_logs_user_date idx_patients_active
    """,
    "restoreassist": """
        users organizations reports subscriptions trial_tokens auth_attempts _prisma_migrations schema_migrations
        pg_stat_statements
    """,
    "n8n_scraper": """
        workflows workflow_node_contexts workflow_standalone_docs workflow_extraction_snapshots workflows_archive
        workflows_2024 workflows_2025 workflow_extraction_summary database_performance data_quality_metrics
        workflows.workflow_id workflows.title workflows.url workflows.metadata workflows.created_at
        workflows.updated_at workflows.unified_extraction_success workflows.layer2_scraped workflows.layer3_scraped
        workflows.search_vector workflow_node_contexts.id workflow_node_contexts.workflow_id
        workflow_node_contexts.node_id workflow_node_contexts.node_position workflow_standalone_docs.id
        workflow_standalone_docs.workflow_id workflow_standalone_docs.doc_id workflow_extraction_snapshots.created_at
        workflow_extraction_summary.workflow_id workflow_extraction_summary.title
        workflow_extraction_summary.unified_extraction_success workflow_extraction_summary.node_context_count
        workflow_extraction_summary.standalone_doc_count
        database_performance.tablename database_performance.live_tuples database_performance.dead_tuples
        database_performance.last_vacuum database_performance.last_autovacuum
        data_quality_metrics.table_name data_quality_metrics.total_records data_quality_metrics.missing_titles
        data_quality_metrics.missing_urls
        idx_workflows_extraction_status idx_workflows_created_at idx_node_contexts_workflow_id
        idx_workflows_metadata_gin idx_node_contexts_position_gin idx_workflows_search
        fk_node_contexts_workflow trigger_update_workflow_search_vector
        update_workflow_search_vector() archive_old_workflows() perform_maintenance()
    """,
    "ap_intake": """
        invoices invoice_extractions vendors exceptions validations staged_exports unused_indexes table_sizes
        pg_stat_statements invoices.id invoices.created_at invoice_extractions.invoice_id
        invoice_extractions.confidence_json invoice_extractions.created_at
        idx_invoices_file_hash_created idx_invoices_workflow_status_created idx_exceptions_resolved_created
        idx_invoices_vendor_created_status idx_extractions_created_confidence idx_validations_passed_created
        idx_staged_exports_status_created
    """,
}

#: The mistakes that were planted, by the checks that find them; all of them are warnings.
FLAWS = {
    "n8n_scraper": {"not_null_title", "not_null_url", "range_views", "not_null_context"},
    "ap_intake": {
        "no_file_came_twice",
        "not_null_invoice_number",
        "the_sum_is_right",
        "due_after_its_date",
        "not_null_tax_id",
        "matches_tax_id",
        "ibans_have_the_length_of_their_country",
        "confidence_is_from_0_to_1",
    },
}

_NAMES = """
    select relname from pg_class where relnamespace = 'public'::regnamespace
    union select c.relname || '.' || a.attname from pg_class c join pg_attribute a on a.attrelid = c.oid
          where c.relnamespace = 'public'::regnamespace and a.attnum > 0 and not a.attisdropped
    union select conname from pg_constraint where connamespace = 'public'::regnamespace
    union select proname || '()' from pg_proc where pronamespace = 'public'::regnamespace
    union select tgname from pg_trigger where not tgisinternal
    union select extname from pg_extension
"""


def declared(system: str) -> Declared:
    found = load_file(DEFS / system / "defs.yaml", Project(DEFS.parent, DEFS))
    assert found is not None
    return found


def migrations(system: str) -> tuple[MigrationPolicy, Folders]:
    policy = declared(system).database.migrations
    assert policy is not None
    return policy, policy.folders(DEFS / system)


def migrate(connection: AutocommitConnection, system: str) -> None:
    policy, folders = migrations(system)
    apply_migrations(connection, folders, policy)


@contextmanager
def filled(target: Target, system: str, profile: str) -> Iterator[AutocommitConnection]:
    """The system as its graph makes it: migrated, partitioned, seeded."""
    found = declared(system).database
    [seed] = [seed for seed in found.seeds if seed.profile == profile]
    now = datetime.now(UTC)
    with connect(target, work="test") as connection:
        migrate(connection, system)
        apply_partitions(connection, found.partitioned_tables, now=now)
        apply_seed(connection, DEFS / system / seed.directory, seed, database=system, now=now)
        yield connection


def one(connection: AutocommitConnection, question: str, *values: Any) -> Any:
    row = connection.execute(question.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


def rows(connection: AutocommitConnection, table: str) -> int:
    return row_count(connection, Relation("public", table))


def test_restoreassist_has_20_tables_95_indexes_and_20_foreign_keys(database: Target) -> None:
    with connect(database, work="test") as connection:
        migrate(connection, "restoreassist")
        assert one(connection, "select count(*) from pg_tables where schemaname = 'public'") == 20
        assert one(connection, "select count(*) from pg_indexes where schemaname = 'public'") == 95
        keys = "select count(*) from pg_constraint where contype = 'f' and connamespace = 'public'::regnamespace"
        assert one(connection, keys) == 20
        assert one(connection, "select count(*) from pg_index where not indisvalid") == 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_each_name_of_the_document_exists(database: Target, system: str) -> None:
    with connect(database, work="test") as connection:
        migrate(connection, system)
        there = {row[0] for row in connection.execute(_NAMES)}
    assert sorted(set(NAMES[system].split()) - there) == []


@pytest.mark.parametrize("system", SYSTEMS)
def test_undo_scripts_take_everything_back(database: Target, system: str) -> None:
    policy, folders = migrations(system)
    with connect(database, work="test") as connection:
        found = round_trip(connection, folders, policy, database=system, server_wide=False)
    assert {version.script: version.status for version in found.versions if version.status != "equal"} == {}
    assert found.undone_to is None
    assert found.whole_way == ()


@pytest.mark.parametrize(
    ("system", "profile"),
    cases(*product(SYSTEMS, PROFILES), sample=[*product(SYSTEMS, ("dev", "test")), ("scriptsensei", "staging")]),
)
def test_each_profile_loads_and_holds_what_the_declaration_asks(database: Target, system: str, profile: str) -> None:
    asked = declared(system).database
    [seed] = [seed for seed in asked.seeds if seed.profile == profile]
    with filled(database, system, profile) as connection:
        verified = verify_seed(connection, DEFS / system / seed.directory, seed, database=system)
        assert verified.passed
        assert verified.references
        checks = [check for table in asked.quality for check in run_table(connection, table).checks]
    failed = [check for check in checks if check.status in ("failed", "errored")]  # those that learn are accepted
    assert [check.message for check in failed if check.status == "errored" or check.severity == "error"] == []
    flaws = FLAWS.get(system, set())
    found = {check.name for check in failed}
    assert found - flaws == set()
    # The smallest profile is too small for each of them.
    assert profile == "test" or flaws - found == set()


def test_performance_indexes_are_built_on_filled_tables_while_others_write(database: Target) -> None:
    policy, folders = migrations("restoreassist")
    [seed] = [seed for seed in declared("restoreassist").database.seeds if seed.profile == "dev"]
    writing, enough = threading.Event(), threading.Event()
    written: list[int] = []

    def write() -> None:
        with connect(database, work="writer") as writer:
            while not enough.is_set():
                written.append(writer.execute("update reports set updated_at = now()").rowcount)
                writing.set()

    with connect(database, work="test") as connection, ThreadPoolExecutor() as pool:
        apply_migrations(connection, folders, policy, target="6")
        folder = DEFS / "restoreassist" / seed.directory
        apply_seed(connection, folder, seed, database="restoreassist", now=datetime.now(UTC))
        writer = pool.submit(write)
        try:
            assert writing.wait(60)
            apply_migrations(connection, folders, policy)
        finally:
            enough.set()
        writer.result(60)
        assert set(written) == {80}
        assert one(connection, "select count(*) from pg_indexes where schemaname = 'public'") == 95
        assert one(connection, "select count(*) from pg_index where not indisvalid") == 0


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_generator_writes_the_files_that_lie_there(tmp_path: Path, system: str) -> None:
    module = importlib.import_module(f"dbplatform.defs.{system}.seeds.generate")
    script = tmp_path / system / "seeds" / "generate.py"
    module.generate(str(script), module.fill, tables=module.TABLES, newest=module.NEWEST, sizes=module.SIZES)
    for profile in PROFILES:
        written, lying = contents(script.parent / profile), contents(DEFS / system / "seeds" / profile)
        assert written.keys() == lying.keys()
        assert [name for name in written if written[name] != lying[name]] == []


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a folder, unpacked: how well they are packed is a matter of the library."""
    return {
        file.name: gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        for file in folder.iterdir()
    }


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_seeds_of_a_system_stay_below_a_megabyte(system: str) -> None:
    assert sum(file.stat().st_size for file in (DEFS / system / "seeds").rglob("*.*")) < 1_000_000


def test_partitioning_is_undone_and_done_again_without_losing_a_row(database: Target) -> None:
    tables = ("workflows", "workflow_node_contexts", "workflow_standalone_docs", "workflow_extraction_snapshots")
    kind = "select relkind::text from pg_class where relname = 'workflows'"
    policy, folders = migrations("n8n_scraper")
    with filled(database, "n8n_scraper", "dev") as connection:
        before = {table: rows(connection, table) for table in tables}
        apply_undo(connection, folders, policy, target="10")
        assert one(connection, kind) == "r"
        assert {table: rows(connection, table) for table in tables} == before
        apply_migrations(connection, folders, policy)
        assert one(connection, kind) == "p"
        assert {table: rows(connection, table) for table in tables} == before
        assert one(connection, "select count(*) from workflows where search_vector is null") == 0


def test_archive_old_workflows_loses_no_row_that_referred_to_one(database: Target) -> None:
    children = ("workflow_node_contexts", "workflow_standalone_docs", "workflow_extraction_snapshots")
    old = "select count(*) from workflows where created_at < now() - interval '1 year' and unified_extraction_success"
    kept = """select sum(jsonb_array_length(node_contexts)), sum(jsonb_array_length(standalone_docs)),
                     sum(jsonb_array_length(extraction_snapshots)) from workflows_archive"""
    with filled(database, "n8n_scraper", "dev") as connection:
        before = {table: rows(connection, table) for table in ("workflows", *children)}
        expected = one(connection, old)
        assert expected > 0
        assert one(connection, "select archive_old_workflows()") == expected
        assert rows(connection, "workflows_archive") == expected
        assert rows(connection, "workflows") == before["workflows"] - expected
        archived = connection.execute(kept.encode()).fetchone()
        assert archived is not None
        assert all(archived)
        for table, count in zip(children, archived, strict=True):
            assert rows(connection, table) + count == before[table]
        mixed = """select count(*) from workflows_archive a, jsonb_array_elements(
                       node_contexts || standalone_docs || extraction_snapshots) child
                   where child ->> 'workflow_id' <> a.workflow_id"""
        assert one(connection, mixed) == 0
        assert one(connection, "select archive_old_workflows()") == 0


def test_workflows_of_more_than_a_year_leave_with_all_that_refers_to_them_and_come_back(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    tables = ("workflows", "workflow_node_contexts", "workflow_standalone_docs", "workflow_extraction_snapshots")
    now = datetime.now(UTC)
    old = "select count(*) from workflows where created_at < %s::timestamptz - interval '12 months'"
    successes = f"{old} and unified_extraction_success"
    [policy] = [one for one in declared("n8n_scraper").database.archives if one.name == "old_workflows"]
    with filled(database, "n8n_scraper", "dev") as connection:
        before = {table: content_hash(connection, Relation("public", table)) for table in tables}
        expected, failed = one(connection, successes, now), one(connection, old, now) - one(connection, successes, now)
        assert expected > 0
        report = archive(database, ledger, tmp_path, policy, now=now)
        assert (report.deleted, report.kept, report.uncovered) == (expected, {}, 0)
        assert sorted(report.along) == sorted(f"public.{table}" for table in tables[1:])
        assert all(report.along.values())
        assert one(connection, old, now) == failed, "those that were not extracted stay"
        restore(database, ledger, report.archives[0].id)
        assert {table: content_hash(connection, Relation("public", table)) for table in tables} == before


def test_the_workflows_summary_does_not_multiply_its_children(database: Target) -> None:
    with filled(database, "n8n_scraper", "dev") as connection:
        counted = "select (select sum({0}_count) from workflow_extraction_summary) = (select count(*) from {1})"
        assert one(connection, counted.format("node_context", "workflow_node_contexts"))
        assert one(connection, counted.format("standalone_doc", "workflow_standalone_docs"))


def test_a_workflow_is_found_by_its_title_as_it_is_now(database: Target) -> None:
    with filled(database, "n8n_scraper", "test") as connection:
        found = "select count(*) from workflows where search_vector @@ websearch_to_tsquery('english', '{}')"
        assert one(connection, found.format("hedgehogs")) == 0
        connection.execute("update workflows set title = 'Count the hedgehog' where workflow_id = '1403'")
        assert one(connection, found.format("hedgehogs")) == 1


def test_bank_accounts_are_seen_by_the_treasury_alone(database: Target) -> None:
    role = f"clerk_of_{database.name}"
    with filled(database, "ap_intake", "test") as connection:
        connection.execute(f"create role {role}".encode())
        connection.execute(f"grant select on vendor_bank_accounts to {role}".encode())
        try:
            connection.execute(f"set role {role}".encode())
            assert one(connection, "select count(*) from vendor_bank_accounts") == 0
            connection.execute("set ap_intake.role = 'treasury'")
            assert one(connection, "select count(*) from vendor_bank_accounts") == 4
        finally:
            connection.execute("reset role")
            connection.execute(f"drop owned by {role}".encode())
            connection.execute(f"drop role {role}".encode())


def test_a_new_state_of_an_invoice_is_audited(database: Target) -> None:
    with filled(database, "ap_intake", "test") as connection:
        before = rows(connection, "audit_log")
        connection.execute(
            "update invoices set status = 'rejected', workflow_state = 'exception' where status = 'paid'"
        )
        changed = one(connection, "select count(*) from invoices where workflow_state = 'exception'")
        assert 0 < rows(connection, "audit_log") - before <= changed
        kept = "select detail -> 'from' ->> 1 from audit_log order by occurred_at desc limit 1"
        assert one(connection, kept) == "paid"


def test_a_clinical_note_and_the_audit_log_forget_nothing(database: Target) -> None:
    with filled(database, "scribemed", "test") as connection:
        note = one(
            connection, "select id::text from notes where id not in (select note_id from note_revisions) limit 1"
        )
        text = one(connection, "select plan from notes where id = %s", note)
        for plan in ("first", "second"):
            connection.execute("update notes set plan = %s where id = %s", (plan, note))
        revisions = connection.execute(
            "select revision, body ->> 'plan' from note_revisions where note_id = %s order by 1", (note,)
        ).fetchall()
        assert revisions == [(1, text), (2, "first")]
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
            connection.execute("delete from audit_logs")
