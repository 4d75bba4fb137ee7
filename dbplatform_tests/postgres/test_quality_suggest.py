"""Suggested checks come with their evidence, can be pasted as they are, pass, and are silent where little is known."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, cast

import pytest
import yaml

from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.engine import run_table
from dbplatform.quality.masks import Masks
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.suggest.constraints import stated
from dbplatform.quality.suggest.patterns import common
from dbplatform.quality.suggest.profile import profile
from dbplatform.quality.suggest.suggestions import (
    CannotProfile,
    TableSuggestions,
    as_yaml,
    suggested,
    suggested_for_all,
    tables,
)
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

SHOP = """
    create table customers (id int primary key, mail text);
    insert into customers select i, 'user' || i || '@example.com' from generate_series(1, 300) i;
    create table countries (code char(2) primary key);
    insert into countries values ('DE'), ('FR'), ('US'), ('JP'), ('CH'), ('GB');
    create table orders (
        id bigint generated always as identity primary key, number text, customer_id int,
        country char(2) references countries,
        status text check (status in ('new', 'paid', 'sent')), channel text, amount numeric(10, 2) check (amount >= 0),
        discount_percent int, note text, created_at timestamptz, born date, uid uuid, ok boolean, ip text, score float8,
        rating int, doc jsonb
    );
    comment on column orders.rating is 'From 1 to 5, required';
    comment on column orders.channel is 'One of: web, app, store, phone.';
    comment on column orders.note is 'must be unique';
    insert into orders (number, customer_id, country, status, channel, amount, discount_percent, note, created_at, born,
                        uid, ok, ip, score, rating, doc)
    select 'ORD-' || lpad(i::text, 5, '0'), 1 + i * 7 % 300, (array['DE', 'FR', 'US', 'JP', 'CH', 'GB'])[1 + i % 6],
           (array['new', 'paid', 'sent'])[1 + i % 3], (array['web', 'app', 'store'])[1 + i % 3], i * 1.37, i % 100,
           case when i % 20 > 0 then 'note ' || i % 50 end, now() - i * interval '20 minutes', date '1980-01-01' + i,
           gen_random_uuid(), true, '10.0.' || i % 256 || '.' || i % 90, case when i = 5 then float8 'NaN' else i end,
           1 + i % 5, '{}'
    from generate_series(1, 2000) i;
"""


@pytest.fixture
def connection(emptied: Target) -> Iterator[AutocommitConnection]:
    with connect(emptied, work="test") as session:
        yield session


def found(connection: AutocommitConnection, table: str = "orders", **options: Any) -> TableSuggestions:
    return suggested(connection, Relation.parse(table), **options)


def declarations(suggestions: TableSuggestions) -> list[dict[str, Any]]:
    return [one.declaration for one in suggestions.checks]


def assert_passing(connection: AutocommitConnection, suggestions: list[TableSuggestions]) -> None:
    """As pasted into a declaration."""
    for table in yaml.safe_load(as_yaml(suggestions))["quality"]:
        result = run_table(connection, TablePolicy.model_validate(table))
        assert [check for check in result.checks if check.status != "passed"] == []


def test_each_kind_of_evidence_makes_its_checks_and_all_of_them_pass(connection: AutocommitConnection) -> None:
    connection.execute(SHOP.encode())
    orders = found(connection)
    declared = declarations(orders)
    for expected in (
        {"not_null": "id"},
        {"unique": "id"},
        {"relationship": {"column": "country", "to": "public.countries.code"}},
        {"accepted_values": {"column": "status", "values": ["new", "paid", "sent"]}},
        {"range": {"column": "amount", "min": 0}},
        {"not_null": "rating"},
        {"range": {"column": "rating", "min": 1, "max": 5}},
        {"accepted_values": {"column": "channel", "values": ["web", "app", "store", "phone"]}},
        {"not_null": "number"},
        {"unique": "number"},
        {"matches": {"column": "number", "regex": "^ORD-[0-9]{5}$"}},
        {"matches": {"column": "ip", "regex": r"^[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3}$"}},
        {"range": {"column": "discount_percent", "min": 0, "max": 100}},
        {"null_ratio": {"column": "note", "max": 0.08}},
        {"range": {"column": "born", "min": "1979-01-01", "max": "now"}},
        {"range": {"column": "created_at", "min": f"{_year(connection) - 1}-01-01", "max": "now"}},
        {"unique": "uid"},
        {"relationship": {"column": "customer_id", "to": "public.customers.id"}},
        {"freshness": {"column": "created_at", "max_age": "3 hours", "severity": "warn"}},
        {"row_count": {"min": 1000}},
    ):
        assert expected in declared, expected
    assert not [check for check in declared if "score" in str(check) and "range" in check]  # NaN is above all
    assert all(one.evidence for one in orders.checks)
    [fresh] = [one.evidence for one in orders.checks if "freshness" in one.declaration]
    assert "hours" not in fresh, "an age is told in the unit that fits it"
    proofs = {str(one.declaration): one.proof for one in orders.checks if one.proof}
    assert proofs["{'unique': 'id'}"] == "the primary key orders_pkey"
    assert "the foreign key orders_country_fkey" in proofs.values()
    assert [note for note in orders.notes if "'must be unique', but note repeats in" in note]
    assert_passing(connection, [found(connection, table.words) for table in tables(connection)])


def _year(connection: AutocommitConnection) -> int:
    row = connection.execute("select extract(year from min(created_at))::int from orders").fetchone()
    assert row is not None
    return int(row[0])


def test_a_sample_is_said_and_what_it_missed_is_not_suggested(connection: AutocommitConnection) -> None:
    connection.execute(
        """
        create table t (n int, kind text, code text);
        insert into t select i, (array['a', 'b'])[1 + i % 2], i from generate_series(1, 20000) i;
        insert into t values (7, 'rare', null);
        analyze t;
        """
    )
    some = found(connection, "t", most_rows=500)
    assert some.sampled is not None
    assert 0 < some.rows_read <= 500
    assert "a sample of" in as_yaml([some])
    assert not [check for check in declarations(some) if "accepted_values" in check]
    assert {"unique": "n"} not in declarations(some)
    assert {"not_null": "code"} not in declarations(some)
    assert {"row_count": {"min": 10000}} in declarations(some)
    assert some == found(connection, "t", most_rows=500)
    assert_passing(connection, [some])


@pytest.mark.parametrize("rows", [0, 3, 99])
def test_nothing_is_concluded_from_too_few_rows(connection: AutocommitConnection, rows: int) -> None:
    connection.execute("create table t (a int, b text, c timestamptz, d text not null)")
    connection.execute("insert into t select i, 'x', now(), 'y' from generate_series(1, %s) i", (rows,))
    few = found(connection, "t")
    assert declarations(few) == [{"not_null": "d"}]
    assert few.checks[0].proof == "NOT NULL of d"
    assert few.notes == (f"{rows} rows are too few to tell anything from the data",)


def test_what_is_declared_is_not_suggested_again(connection: AutocommitConnection) -> None:
    connection.execute(SHOP.encode())
    first = found(connection, "customers")
    policy = TablePolicy(table="customers", checks=declarations(first))  # type: ignore[arg-type]
    assert declarations(found(connection, "customers", declared=policy)) == []
    assert "nothing to suggest" in as_yaml([found(connection, "customers", declared=policy)])
    assert yaml.safe_load(as_yaml([]))["quality"] == []


def test_odd_names_and_values_are_written_so_that_they_can_be_pasted(connection: AutocommitConnection) -> None:
    connection.execute(
        """
        create schema "S %s";
        create table "S %s"."Ta""ble {}" (
            "a b" text, "a_b" text, "per%cent" text, "#: - {x}" text, "äöü€" int, "select" text, "no" text
        );
        insert into "S %s"."Ta""ble {}"
        select (array['yes', 'no', '1.0', 'null', 'x: y # z', 'quo"te', E'tab\\t', '~', '2020-01-01'])[1 + i % 9],
               (array['a', E'new\\nline'])[1 + i % 2], '100%', 'k' || i, i % 40, i::text,
               (array['on', 'off'])[1 + i % 2]
        from generate_series(1, 400) i;
        comment on column "S %s"."Ta""ble {}"."a b" is E'required\\n- sql: {rows: drop table x}';
        """.encode()
    )
    odd = found(connection, '"S %s"."Ta""ble {}"')
    assert len(odd.checks) > 12
    assert_passing(connection, [odd])
    pasted = yaml.safe_load(as_yaml([odd]))["quality"][0]
    assert pasted["checks"] == declarations(odd)
    assert len({check.name for check in TablePolicy.model_validate(pasted).checks}) == len(odd.checks)


def test_a_read_that_takes_too_long_is_an_error_that_says_so(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int); create table held (a int)")
    connection.execute("insert into t select generate_series(1, 200000)")
    with pytest.raises(CannotProfile, match="statement timeout"):
        found(connection, "t", statement_timeout_ms=1)


def test_a_table_that_cannot_be_read_is_told_and_the_others_are_suggested_for(connection: AutocommitConnection) -> None:
    connection.execute(
        "create function spoiled(int) returns int immutable language plpgsql as $$ begin return $1 / 0; end $$"
    )
    connection.execute("create table b (id int primary key); insert into b select generate_series(1, 300)")
    connection.execute("create table a (id int)")
    connection.execute("alter table a enable row level security; alter table a force row level security")
    connection.execute("create policy p on a using (spoiled(id) > 0); insert into a values (1)")
    role = f"reader_{uuid.uuid4().hex[:12]}"
    connection.execute(f"create role {role}; grant usage on schema public to {role}".encode())
    connection.execute(f"grant select on all tables in schema public to {role}".encode())
    connection.execute(f"set role {role}".encode())
    try:
        first, second = suggested_for_all(connection, declared={})
    finally:
        connection.execute(f"reset role; drop owned by {role}; drop role {role}".encode())
    assert (first.table, first.checks) == ("public.a", ())
    assert "division by zero" in first.notes[0]
    assert second.table == "public.b"
    assert {"unique": "id"} in declarations(second)


def test_long_texts_are_profiled_by_their_length_alone(connection: AutocommitConnection) -> None:
    connection.execute("create table t (document text)")
    connection.execute("insert into t select repeat(i % 50 || '-', 400) from generate_series(1, 600) i")
    read = profile(cast("SnapshotConnection", connection), Relation.parse("t"))
    (column,) = read.columns
    assert (column.different, column.values, column.examples) == (50, (), ())
    assert not {"matches", "accepted_values"} & {kind for one in declarations(found(connection, "t")) for kind in one}


def test_an_error_of_profiling_quotes_nothing_in_the_chain_where_values_are_masked(
    connection: AutocommitConnection,
) -> None:
    connection.execute("create table t (a int); insert into t select generate_series(1, 200000)")
    with pytest.raises(CannotProfile) as caught:
        found(connection, "t", statement_timeout_ms=1, masks=Masks({Relation.parse("t"): {"a": "redact"}}))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_no_value_of_a_masked_column_is_told(connection: AutocommitConnection) -> None:
    connection.execute("create table t (name text, born date, pay int, seen_at timestamptz)")
    connection.execute(
        """
        insert into t
        select 'Secret-' || i % 3, date '1971-02-03', 4711 + i % 2, now() from generate_series(1, 300) i
        """
    )
    policy = TablePolicy.model_validate(
        {"table": "t", "mask": ["name", "born", "pay", "seen_at"], "checks": [{"not_null": "name"}]}
    )
    masked = found(connection, "t", declared=policy, masks=Masks.declared([policy]))
    assert declarations(masked) == [{"not_null": name} for name in ("born", "pay", "seen_at")] + [
        {"row_count": {"min": 100}}
    ]
    assert not any(value in as_yaml([masked]) + str(masked.as_json()) for value in ("Secret", "1971", "471"))


def test_partitions_and_tables_of_extensions_are_not_suggested_for(connection: AutocommitConnection) -> None:
    connection.execute("create table t (a int) partition by range (a); create table t1 partition of t default")
    connection.execute("insert into t select generate_series(1, 1000)")
    assert tables(connection) == [Relation("public", "t")]
    assert {"unique": "a"} in declarations(found(connection, "t"))


@pytest.mark.parametrize(
    ("texts", "regex"),
    [
        (["a@b.de", "x.y@z.org"], r"^[^@ ]+@[^@ ]+\.[^@ ]+$"),
        (["DE", "FR"], "^[A-Z]{2}$"),
        (["EUR", "USD"], "^[A-Z]{3}$"),
        (["2024-01-01", "1999-12-31"], "^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
        (["AB-1", "CD-123"], "^[A-Z]{2}-[0-9]{1,3}$"),
        (["v1/7", "v1/88"], "^v1/[0-9]{1,2}$"),
        (["hello", "world"], None),
        (["a@b.de", "c@d.de\n"], None),
        (["A1", "1A"], None),
        (["Ä1", "Ö2"], None),
        (["", "A1"], None),
    ],
)
def test_a_pattern_is_what_all_texts_have_in_common(texts: list[str], regex: str | None) -> None:
    pattern = common(texts)
    assert (None if pattern is None else pattern[1]) == regex


@pytest.mark.parametrize(
    ("definition", "expected"),
    [
        ("CHECK ((n >= 1))", ((), "1", None)),
        ("CHECK (((n >= 1) AND (n <= 5)))", ((), "1", "5")),
        ("CHECK ((n >= '-1.5'::numeric))", ((), "-1.5", None)),
        ("CHECK ((s = ANY (ARRAY['a'::text, 'it''s'::text])))", (("a", "it's"), None, None)),
        ("CHECK (((s)::text = ANY ((ARRAY['a'::character varying])::text[])))", (("a",), None, None)),
        ("CHECK (((n >= 1) OR (n IS NULL)))", None),
        ("CHECK ((abs(n) >= 1))", None),
        ("CHECK ((n > 1))", None),
        ("CHECK (((s = ANY (ARRAY['a'::text])) AND (n <= 5)))", None),
        ("CHECK ((n <> ALL (ARRAY[1, 2])))", None),
    ],
)
def test_a_check_constraint_is_taken_only_where_it_can_be_said_whole(definition: str, expected: Any) -> None:
    one = stated("c", "n", definition, True)
    assert (None if one is None else (one.values, one.low, one.high)) == expected
