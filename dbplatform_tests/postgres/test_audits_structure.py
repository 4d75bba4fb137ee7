"""The audit of a structure: each fault is made on a real server and found, with the SQL that mends it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations
from dbplatform.monitoring import collect
from dbplatform.monitoring.audits import structure
from dbplatform.monitoring.audits.finding import Audit
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.installation import REPOSITORY

pytest_plugins = ("dbplatform_tests.postgres.audited_database",)

NOW = datetime(2026, 3, 1, tzinfo=UTC)
MIGRATIONS = REPOSITORY / "dbplatform" / "defs" / "restoreassist" / "migrations"
WELL = """
    create table customer (id bigint generated always as identity primary key, email text not null unique, tags jsonb);
    create table purchase (id uuid primary key, customer_id bigint not null references customer, at timestamptz);
    create index purchase_customer on purchase (customer_id, at);
"""

#: What is done to the database above: the rule, the object, and words of the evidence; whether its mend ends it.
FAULTS = {
    "a table without a key": (
        "create table note (text text)",
        ("no_primary_key", "public.note", "rows", False),
    ),
    "a table whose unique index could be its key": (
        "create table note (code text not null); create unique index note_code on note (code)",
        ("no_primary_key", "public.note", "note_code", True),
    ),
    "a foreign key without index": (
        "drop index purchase_customer",
        ("small_foreign_key_without_index", "public.purchase purchase_customer_id_fkey", "public.customer", True),
    ),
    "a foreign key whose index leaves rows out": (
        "drop index purchase_customer; create index on purchase (customer_id) where at > '2026-01-01'",
        ("small_foreign_key_without_index", "public.purchase purchase_customer_id_fkey", "customer_id", True),
    ),
    "another type than the column that is referred to": (
        "create table visit (id int primary key, customer_id int references customer);"
        "create index on visit (customer_id)",
        ("type_differs_from_referenced", "public.visit.customer_id", "bigint", True),
    ),
    "no time zone": (
        "alter table purchase add column paid timestamp",
        ("timestamp_without_time_zone", "public.purchase.paid", "timestamp without time zone", True),
    ),
    "money": ("alter table purchase add column cost money", ("money", "public.purchase.cost", "money", True)),
    "padded text": (
        "alter table purchase add column code char(4)",
        ("padded_text", "public.purchase.code", "character(4)", True),
    ),
    "a time of day with an offset": (
        "alter table purchase add column daily timetz",
        ("time_with_time_zone", "public.purchase.daily", "time with time zone", False),
    ),
    "an unproven constraint": (
        "alter table purchase add constraint old check (at > '2000-01-01') not valid",
        ("constraint_not_validated", "public.purchase old", "CHECK", True),
    ),
    "a foreign key whose triggers are disabled": (
        "alter table purchase disable trigger all",
        ("constraint_not_enforced", "public.purchase purchase_customer_id_fkey", "disabled", True),
    ),
    "a disabled trigger": (
        "create function nothing() returns trigger language plpgsql as 'begin return new; end';"
        "create trigger keep before insert on customer for each row execute function nothing();"
        "alter table customer disable trigger keep",
        ("trigger_disabled", "public.customer keep", "disabled", True),
    ),
    "an index twice": (
        "create index once_more on purchase (customer_id, at)",
        ("duplicate_index", "public.once_more", "public.purchase_customer", True),
    ),
    "an index beside that of a constraint": (
        "create unique index a_email on customer (email)",
        ("duplicate_index", "public.a_email", "public.customer_email_key", True),
    ),
    "an invalid index": (
        "create index customer_tags on customer (tags);"
        "update pg_index set indisvalid = false where indexrelid = 'customer_tags'::regclass",
        ("invalid_index", "public.customer_tags", "CREATE INDEX", True),
    ),
    "a key near its end": (
        "create table ticket (id serial primary key); select setval('ticket_id_seq', 2000000000)",
        ("key_near_its_end", "public.ticket_id_seq", "2,000,000,000", False),
    ),
}


@pytest.fixture
def database(audited_database: Target) -> Target:
    return audited_database


def audited(database: Target, migrated: Any = None, **options: Any) -> Audit:
    with collect.session(database) as connection:
        return structure.audit(
            connection,
            database="shop",
            now=NOW,
            migrated={"version": None} if migrated is None else migrated,
            **options,
        )


def test_a_sound_structure_passes_and_is_listed_with_its_types(database: Target) -> None:
    by_hand(database, WELL)
    found = audited(database)
    assert (found.findings, found.not_examined, found.verdict) == ((), {}, "passed")
    document = found.as_json()
    assert document["counts"] == {"tables": 2, "indexes": 4, "foreign_keys": 1, "columns": 6}
    assert document["types"] == {"bigint": 2, "text": 1, "jsonb": 1, "uuid": 1, "timestamp with time zone": 1}
    customer, purchase = document["tables"]
    assert (customer["table"], customer["primary_key"], customer["partitions"]) == ("public.customer", ["id"], 0)
    assert purchase["columns"]["customer_id"] == "bigint"
    (key,) = document["foreign_keys"]
    assert (key["table"], key["columns"], key["refers_to"], key["indexed"], key["validated"]) == (
        "public.purchase",
        "customer_id",
        "public.customer",
        True,
        True,
    )


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_once_and_its_mend_ends_it(database: Target, fault: str) -> None:
    statements, (rule, object_, words, mends) = FAULTS[fault]
    by_hand(database, WELL, *statements.split(";") if "plpgsql" not in statements else [statements])
    (finding,) = audited(database).findings
    assert (finding.rule.name, finding.object) == (rule, object_)
    assert words in finding.evidence
    assert finding.rule.document.startswith("https://")
    if mends:
        assert finding.mend is not None
        by_hand(database, finding.mend)
        assert audited(database).findings == ()


def test_a_foreign_key_without_index_matters_once_its_table_is_large(database: Target) -> None:
    by_hand(
        database,
        "create table country (id int primary key)",
        "insert into country values (1)",
        "create table citizen (id int, country int references country, primary key (id)) partition by range (id)",
        "create table citizen_1 partition of citizen for values from (0) to (20000)",
        "insert into citizen select g, 1 from generate_series(1, 10000) g",
        "analyze citizen_1",
    )
    (finding,) = audited(database).failing
    assert (finding.rule.name, finding.severity) == ("foreign_key_without_index", "warning")
    assert "reads all of its 10000 rows" in finding.evidence


def test_a_notice_fails_nothing(database: Target) -> None:
    by_hand(database, WELL, "alter table purchase add column paid timestamp")
    assert audited(database).verdict == "passed"


def test_an_index_of_nulls_left_out_or_in_another_order_serves_a_foreign_key(database: Target) -> None:
    by_hand(
        database,
        "create table a (x int, y int, primary key (x, y))",
        "create table b (id int primary key, x int, y int, z int references b, foreign key (x, y) references a)",
        "create index on b (y, x)",
        "create index on b (z) where z is not null",
    )
    assert audited(database).findings == ()


def test_partitions_count_with_their_table(database: Target) -> None:
    by_hand(
        database,
        "create table log (id bigint, at timestamptz, primary key (id, at)) partition by range (at)",
        *(
            f"create table log_{m} partition of log for values from ('2026-0{m}-01') to ('2026-0{m + 1}-01')"
            for m in (1, 2, 3)
        ),
    )
    found = audited(database)
    assert found.inventory["counts"] == {"tables": 1, "indexes": 1, "foreign_keys": 0, "columns": 2}
    assert found.inventory["tables"][0]["partitions"] == 3
    assert found.findings == ()


def test_restoreassist_has_its_20_tables_95_indexes_and_20_foreign_keys(database: Target) -> None:
    policy = MigrationPolicy(history_table=Relation("migrations", "flyway_schema_history"))
    with connect(database, work="test") as connection:
        apply_migrations(connection, MIGRATIONS, policy, database="restoreassist")
    found = audited(database, history_table=policy.history_table)
    counts = found.inventory["counts"]
    assert (counts["tables"], counts["indexes"], counts["foreign_keys"]) == (20, 95, 20)
    assert len(found.inventory["indexes"]) == 95
    assert {"uuid", "jsonb", "timestamp with time zone"} <= found.inventory["types"].keys()
    assert found.failing == ()


def test_what_cannot_be_read_is_neither_passed_nor_failed(database: Target) -> None:
    by_hand(database, WELL)
    found = audited(database, migrated="nobody has compared it")
    assert found.not_examined == {"not_as_migrated": "nobody has compared it"}
    assert "not_as_migrated" not in found.examined
    assert found.verdict == "errored"


def test_a_statement_that_waits_too_long_leaves_its_rules_unexamined(database: Target) -> None:
    by_hand(database, WELL)
    with psycopg.connect(database.url) as other:
        other.execute("lock table pg_constraint in access exclusive mode")
        found = audited(database)
    assert "lock timeout" in found.not_examined["no_primary_key"]
    assert "key_near_its_end" in found.examined
    assert (found.verdict, found.inventory["counts"]) == ("errored", None)


def test_the_statements_of_audits_and_metrics_are_not_compiled(database: Target) -> None:
    with collect.session(database) as connection:
        assert connection.execute("show jit").fetchone() == ("off",), "of a large catalog that took 23 s instead of 1.4"
