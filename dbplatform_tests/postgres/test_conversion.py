"""Online conversion on a real server: what is carried over, what is refused, and the way back.

One module, because what is carried over there is what must come back.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from dbplatform.errors import LockNotAcquired
from dbplatform.partitioning.conversion import patience
from dbplatform.partitioning.conversion.convert import convert
from dbplatform.partitioning.conversion.errors import (
    AlreadyPartitioned,
    CannotConvert,
    CannotUndo,
    DeclarationChanged,
    LegacyGone,
    NothingToUndo,
    TableReplaced,
)
from dbplatform.partitioning.conversion.plan import plan_conversion
from dbplatform.partitioning.conversion.undo import plan_undo, undo
from dbplatform.partitioning.plan import plan_partitions
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.conversion_support import (
    NOW,
    PLAIN,
    RICH,
    back,
    contents,
    forward,
    kill_while_waiting,
    kind,
    left_over,
    policy,
    run_and_die,
)

# Everything that a person sees of the table: what a conversion must give the new one, and an undo the old one.
SEEN = {
    "columns": "select attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, "
    "attstattarget, attoptions, pg_get_expr(adbin, adrelid), col_description(attrelid, attnum) from pg_attribute "
    "left join pg_attrdef on adrelid = attrelid and adnum = attnum "
    "where attrelid = 'event'::regclass and attnum > 0 order by attname",
    "indexes": "select c.relname, replace(pg_get_indexdef(c.oid), ' ON ONLY ', ' ON '), "
    "obj_description(c.oid, 'pg_class') from pg_index i join pg_class c on c.oid = i.indexrelid "
    "where indrelid = 'event'::regclass order by 1",
    "constraints": "select conname, pg_get_constraintdef(oid), convalidated, obj_description(oid, 'pg_constraint') "
    "from pg_constraint where 'event'::regclass in (conrelid, confrelid) and conparentid = 0 order by 1",
    "triggers": "select tgname, pg_get_triggerdef(oid), obj_description(oid, 'pg_trigger') from pg_trigger "
    "where tgrelid = 'event'::regclass and not tgisinternal order by 1",
    "policies": "select * from pg_policies where tablename = 'event' order by policyname",
    "table": "select pg_get_userbyid(relowner), relacl::text, relrowsecurity, relforcerowsecurity, "
    "obj_description(oid, 'pg_class') from pg_class where oid = 'event'::regclass",
    "views": "select relname, pg_get_viewdef(oid), relacl::text, reloptions, obj_description(oid, 'pg_class') "
    "from pg_class where relkind = 'v' and relnamespace = 'public'::regnamespace order by 1",
    "sequences": "select pg_get_serial_sequence('event', 'id'), last_value, is_called from event_id_seq",
}


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


def seen(connection: AutocommitConnection) -> dict[str, Any]:
    return {name: connection.execute(query.encode()).fetchall() for name, query in SEEN.items()}


def test_a_conversion_keeps_every_row_and_carries_everything_over(connection: AutocommitConnection) -> None:
    connection.execute(RICH)
    before, rows = seen(connection), contents(connection)

    report = forward(connection)

    assert report.phases == ("check", "validate", "index", "swap", "references", "partitions", "analyze")
    assert kind(connection) == "p"
    assert contents(connection) == rows
    assert seen(connection) == before
    assert connection.execute("select id, at from deeper order by id limit 1").fetchone() is not None


def test_the_plain_table_becomes_one_partition_and_more_are_ready_behind_it(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)

    report = forward(connection)

    plan = plan_partitions(connection, [policy()], now=NOW).tables[0]
    assert [(one.relation.name, str(one.bounds)) for one in plan.existing] == [
        ("event_legacy", "[0001-01-01T00:00:00+00:00, 2026-06-01T00:00:00+00:00)"),
        ("event_p2026_06", "[2026-06-01T00:00:00+00:00, 2026-07-01T00:00:00+00:00)"),
        ("event_p2026_07", "[2026-07-01T00:00:00+00:00, 2026-08-01T00:00:00+00:00)"),
    ]
    assert plan.create == ()
    assert report.bound == "2026-06-01 00:00:00+00:00"
    assert left_over(connection) == ["event_body_legacy", "event_legacy", "event_pkey_legacy"]


def test_the_table_ends_behind_its_newest_row(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    connection.execute("insert into event (at) values ('2027-01-10')")
    assert forward(connection).bound == "2027-04-01 00:00:00+00:00"


@pytest.mark.parametrize(("type_", "bound"), [("date", "2026-06-01"), ("timestamp", "2026-06-01 00:00:00")])
def test_dates_and_timestamps_without_zone_convert(connection: AutocommitConnection, type_: str, bound: str) -> None:
    connection.execute(f"create table event (at {type_} not null, body text)".encode())
    connection.execute("insert into event values ('2026-01-05', 'a'), ('-infinity', 'b')")
    assert forward(connection).bound == bound
    assert connection.execute("select count(*) from event").fetchone() == (2,)


@pytest.mark.parametrize("type_", ["smallint", "integer", "bigint"])
def test_a_table_converts_by_its_numbers_and_comes_back(connection: AutocommitConnection, type_: str) -> None:
    numbers = policy(column="id", interval=1000)
    connection.execute(f"create table event (id {type_} primary key, body text)".encode())
    connection.execute("insert into event select i, 'b' || i from generate_series(-500, 1500) i")
    rows = contents(connection)

    report = convert(connection, numbers, now=NOW)

    plan = plan_partitions(connection, [numbers], now=NOW).tables[0]
    assert report.bound == "4000"
    assert [(one.relation.name, one.bounds.has_lower, one.bounds.upper) for one in plan.existing] == [
        ("event_legacy", False, 4000),
        ("event_p4000", True, 5000),
        ("event_p5000", True, 6000),
    ]
    assert plan.create == ()
    assert contents(connection) == rows
    connection.execute("insert into event values (4001, 'new')")
    undo(connection, numbers)
    assert kind(connection) == "r"
    assert connection.execute("select count(*), min(id), max(id) from event").fetchone() == (2002, -500, 4001)


@pytest.mark.parametrize(
    ("column", "interval", "reason"),
    [("id", "1 month", "holds numbers"), ("at", 1000, "holds times"), ("id", 2**61, "beyond the numbers of its type")],
)
def test_an_interval_that_does_not_suit_the_column_is_refused(
    connection: AutocommitConnection, column: str, interval: str | int, reason: str
) -> None:
    connection.execute(PLAIN)
    with pytest.raises(CannotConvert) as refused:
        convert(connection, policy(column=column, interval=interval), now=NOW)
    assert reason in refused.value.message
    assert kind(connection) == "r"


def test_months_of_another_time_zone_begin_there(connection: AutocommitConnection) -> None:
    berlin = policy(time_zone="Europe/Berlin")
    connection.execute(PLAIN)
    assert convert(connection, berlin, now=NOW).bound == "2026-05-31 22:00:00+00:00"
    plan = plan_partitions(connection, [berlin], now=NOW).tables[0]
    assert [str(one.bounds) for one in plan.existing[1:]] == [
        "[2026-05-31T22:00:00+00:00, 2026-06-30T22:00:00+00:00)",
        "[2026-06-30T22:00:00+00:00, 2026-07-31T22:00:00+00:00)",
    ]
    assert plan.create == ()


def test_new_rows_reach_their_partition_with_the_next_values(connection: AutocommitConnection) -> None:
    connection.execute(RICH)
    forward(connection)
    connection.execute("insert into event (at, carrier) values ('2026-06-05', 'BB'), ('2026-01-05', 'BB')")
    found = connection.execute(
        "select tableoid::regclass::text, id, number, body, low from event where carrier = 'BB' order by id"
    ).fetchall()
    assert found == [
        ("event_p2026_06", 501, 5010, "empty", "empty"),
        ("event_legacy", 502, 5020, "empty", "empty"),
    ]
    connection.execute("insert into line select id, at from event where carrier = 'BB'")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("insert into line values (999, '2026-06-05')")
    connection.execute("delete from carrier where code = 'BB'")
    assert connection.execute("select count(*) from line").fetchone() == (100,)


def test_the_swap_reads_no_rows(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    said: list[str] = []
    connection.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    connection.execute("set client_min_messages = debug1")
    forward(connection)
    implied = [text for text in said if "implied by existing constraints" in text]
    assert any('"event_legacy"' in text for text in implied)
    built = [text for text in said if "building index" in text and "event_legacy" in text]
    assert built == []


def test_a_second_conversion_does_nothing(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    forward(connection)
    assert forward(connection).phases == ()
    assert plan_conversion(connection, policy(), now=NOW).is_done


def test_an_undo_gives_the_plain_table_back(connection: AutocommitConnection) -> None:
    connection.execute(RICH)
    before = seen(connection)
    forward(connection)
    connection.execute("insert into event (at, carrier) values ('2026-06-05', 'BB'), ('2026-01-05', 'BB')")
    rows = contents(connection)

    assert back(connection).state == "plain"

    assert kind(connection) == "r"
    assert contents(connection) == rows
    assert left_over(connection) == []
    after = seen(connection)
    assert after.pop("sequences") == [("public.event_id_seq", 502, True)]
    del before["sequences"]
    assert after == before
    connection.execute("insert into event (at) values ('2030-01-01')")
    assert connection.execute("select id, number from event where at = '2030-01-01'").fetchone() == (503, 5030)
    with pytest.raises(NothingToUndo):
        back(connection)


def test_an_undo_brings_what_was_added_since(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    forward(connection)
    connection.execute("alter table event add note text default 'n'")
    connection.execute("create view later as select note from event")
    connection.execute("create index event_note on event (note)")
    connection.execute("grant select on event to pg_monitor")
    back(connection)
    assert connection.execute("select count(note) from later").fetchone() == (500,)
    found = connection.execute("select indexname from pg_indexes where tablename = 'event' order by 1").fetchall()
    assert found == [("event_body",), ("event_note",), ("event_pkey",)]
    assert connection.execute("select has_table_privilege('pg_monitor', 'event', 'select')").fetchone() == (True,)


def test_a_key_without_the_column_is_extended_and_an_undo_restores_it(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    key = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'event_pkey'"
    notes = plan_conversion(connection, policy(), now=NOW).notes
    assert any("becomes (id, at)" in note for note in notes)
    forward(connection)
    assert connection.execute(key).fetchall() == [("PRIMARY KEY (id, at)",)]
    back(connection)
    assert connection.execute(key).fetchall() == [("PRIMARY KEY (id)",)]
    assert left_over(connection) == []


@pytest.mark.parametrize("at", ["2026-01-05", "2026-06-05"])
def test_an_undo_refuses_keys_that_are_no_longer_unique(connection: AutocommitConnection, at: str) -> None:
    connection.execute(PLAIN)
    forward(connection)
    connection.execute("insert into event (id, at) values (1, %s)", (at,))
    rows = contents(connection)
    with pytest.raises(CannotUndo, match=r"\(id\)=\(1\)"):
        back(connection)
    assert kind(connection) == "p"
    assert contents(connection) == rows
    assert forward(connection).phases == ()
    connection.execute("delete from event where id = 1 and at = %s", (at,))
    back(connection)
    assert contents(connection)[0] == 500


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("alter table event alter at drop not null", "may be NULL"),
        ("alter table event alter at type text", "has the type text"),
        ("alter table event rename at to moment", "has no column at"),
        ("create unique index once on event (body)", "once is unique without at"),
        ("alter table event add constraint once unique (id, body)", "once is unique without at"),
        ("create table line (event bigint references event)", "line_event_fkey of public.line refers to (id)"),
        ("alter table event add parent bigint references event", "refers to the table itself"),
        (
            "alter table event add unique (id, at); create table line (i bigint, a timestamptz, "
            "foreign key (i, a) references event (id, at)) partition by range (a)",
            "belongs to a partitioned table",
        ),
        (
            "alter table event add unique (id, at); create table line (i bigint, a timestamptz); "
            "alter table line add foreign key (i, a) references event (id, at) not valid",
            "is NOT VALID",
        ),
        ("alter table event add constraint short check (body < 'z') not valid", "short is NOT VALID"),
        ("alter table event add constraint own check (body < 'z') no inherit", "own is NO INHERIT"),
        ("alter table event add exclude using gist (tstzrange(at, at) with &&)", "excludes overlaps"),
        ("alter table event replica identity full", "replica identity"),
        ("create publication told for table event", "the publication told"),
        ("create publication everything for all tables", "the publication everything"),
        ("create materialized view stored as select * from event", "stored"),
        ("create rule quiet as on delete to event do instead nothing", "rule quiet"),
        (
            "create view v as select 1 a; create rule r as on insert to v do instead insert into event (at) "
            "values (now())",
            "rule r on view public.v",
        ),
        ("create function whole(event) returns int language sql as 'select 1'", "function public.whole"),
        (
            "create function sum_up() returns bigint begin atomic select count(*) from event; end",
            "function public.sum_up",
        ),
        ("create view rows as select event from event", "view public.rows"),
        ("create table kept (row event)", "table public.kept"),
        ("create table child () inherits (event)", "table public.child"),
        ("create table above (at timestamptz not null); alter table event inherit above", "the table public.above"),
        ("create view grouped as select id, body from event group by id", "grouped groups by the primary key"),
        ("alter table event set unlogged", "unlogged"),
        ("insert into event (at) values ('infinity')", "infinity"),
        ("create table event_legacy (a int)", "event_legacy"),
        ("create index event_body_legacy on event (id)", "event_body_legacy"),
        (
            "create function f() returns trigger language plpgsql as 'begin return null; end'; "
            "create trigger noticing after insert on event "
            "referencing new table as n for each row execute function f()",
            "noticing is FOR EACH ROW with transition tables",
        ),
        (
            "create function f() returns trigger language plpgsql as 'begin return null; end'; "
            "create trigger asleep after insert on event for each row execute function f(); "
            "alter table event disable trigger asleep",
            "asleep is not simply enabled",
        ),
        (
            "create table other (id bigint); alter table other enable row level security; "
            "create policy nosy on other using (id in (select id from event))",
            "policy nosy",
        ),
    ],
)
def test_what_cannot_come_along_is_refused_by_name_before_anything_changes(
    connection: AutocommitConnection, change: str, reason: str
) -> None:
    connection.execute(PLAIN)
    connection.execute(change.encode())
    with pytest.raises(CannotConvert) as refused:
        forward(connection)
    assert reason in refused.value.message
    assert kind(connection) == "r"
    assert connection.execute("select to_regclass('dbplatform.partition_conversion')").fetchone() == (None,)
    assert [name for name in left_over(connection) if not name.endswith("_legacy")] == []


def test_what_belongs_to_somebody_else_is_refused(database: Target, connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    connection.execute("create view theirs as select id from event")
    connection.execute("set role pg_monitor")
    with pytest.raises(CannotConvert) as refused:
        plan_conversion(connection, policy(), now=NOW)
    assert "public.event belongs to" in refused.value.message
    assert "public.theirs belongs to" in refused.value.message


def test_rows_come_back_under_a_deferred_foreign_key(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    connection.execute("create table carrier (code text primary key); insert into carrier values ('AA')")
    connection.execute("alter table event add carrier text references carrier deferrable initially deferred")
    forward(connection)
    connection.execute("insert into event (at, carrier) values ('2026-06-05', 'AA')")
    back(connection)
    assert contents(connection)[0] == 501
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        connection.execute("insert into event (at, carrier) values ('2026-06-05', 'ZZ')")


def test_every_reason_is_told_at_once(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    connection.execute("create unique index once on event (body)")
    connection.execute("create table line (event bigint references event)")
    with pytest.raises(CannotConvert) as refused:
        forward(connection)
    assert len(refused.value.fields["found"]) == 2


def test_what_comes_in_the_way_later_is_refused_before_the_swap(
    database: Target, connection: AutocommitConnection
) -> None:
    connection.execute(PLAIN)
    run_and_die(database, "forward", "convert event", 2)
    connection.execute("create unique index once on event (body)")
    with pytest.raises(CannotConvert, match="once is unique without at"):
        forward(connection)
    back(connection)
    assert (kind(connection), left_over(connection)) == ("r", [])


def test_a_held_table_is_asked_for_often_and_given_up(
    database: Target, connection: AutocommitConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection.execute(PLAIN)
    monkeypatch.setattr(patience, "PAUSES", replace(patience.PAUSES, tries=3))
    pauses: list[float] = []
    with psycopg.connect(database.url) as holder:
        holder.execute("select 1 from event")
        with pytest.raises(LockNotAcquired):
            convert(connection, policy(), now=NOW, sleep=pauses.append, lock_timeout_ms=5)
    assert len(pauses) == 2
    assert forward(connection).phases[0] == "check"


def test_a_dry_run_lists_each_statement_with_its_lock_and_changes_nothing(connection: AutocommitConnection) -> None:
    connection.execute(RICH)
    before = seen(connection)
    document = plan_conversion(connection, policy(), now=NOW).as_json(connection)
    assert [one["phase"] for one in document["phases"]] == [
        *("check", "validate", "index", "swap", "references", "partitions", "analyze")
    ]
    listed = [(one["sql"], one["lock"]) for phase in document["phases"] for one in phase["statements"]]
    assert all(statement and lock for statement, lock in listed)
    assert ('lock table "public"."event", "public"."line" in access exclusive mode',) in [(s,) for s, _ in listed]
    assert seen(connection) == before
    assert connection.execute("select to_regclass('dbplatform.partition_conversion')").fetchone() == (None,)


def test_the_dry_run_of_an_undo_counts_the_rows_that_move(connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    forward(connection)
    connection.execute("insert into event (at) values ('2026-06-05'), ('2026-01-05')")
    plan = plan_undo(connection, policy())
    assert plan.move_rows == 1
    assert [phase.name for phase in plan.phases] == ["index", "unswap", "references"]
    assert kind(connection) == "p"


def test_an_index_build_that_was_killed_is_built_anew(database: Target, connection: AutocommitConnection) -> None:
    connection.execute(PLAIN)
    run_and_die(database, "forward", "convert event", 2)
    with psycopg.connect(database.url) as holder:
        holder.execute("insert into event (at) values ('2026-01-01')")
        kill_while_waiting(database, "forward", "create unique index")
        holder.rollback()
    valid = "select indisvalid from pg_index where indexrelid = 'event_pkey_wide'::regclass"
    assert connection.execute(valid).fetchone() == (False,)
    assert forward(connection).phases[0] == "index"
    assert kind(connection) == "p"


def test_a_swap_that_was_killed_while_it_waited_has_changed_nothing(
    database: Target, connection: AutocommitConnection
) -> None:
    connection.execute(RICH)
    rows = contents(connection)
    run_and_die(database, "forward", "convert event", 3)
    with psycopg.connect(database.url) as holder:
        holder.execute("select 1 from event")
        kill_while_waiting(database, "forward", "lock table")
    assert kind(connection) == "r"
    assert forward(connection).phases[0] == "swap"
    assert contents(connection) == rows


@pytest.mark.parametrize("off", cases(timedelta(days=400), timedelta(days=-400), sample=(timedelta(days=-400),)))
def test_a_conversion_gone_on_with_by_a_wrong_clock_keeps_every_row(
    database: Target, connection: AutocommitConnection, off: timedelta
) -> None:
    connection.execute(PLAIN)
    rows = contents(connection)
    run_and_die(database, "forward", "convert event", 4)
    convert(connection, policy(), now=NOW + off)
    assert (kind(connection), contents(connection)) == ("p", rows)
    assert forward(connection).phases == ()
    assert contents(connection) == rows


def test_two_at_once_convert_the_table_once(database: Target, connection: AutocommitConnection) -> None:
    connection.execute(RICH)
    rows = contents(connection)

    def one() -> bool:
        try:
            with connect(database, work="test") as session:
                return bool(forward(session).phases)
        except LockNotAcquired:  # the other one was at work for longer than this one waits
            return False

    with ThreadPoolExecutor(2) as both:
        did = [future.result() for future in [both.submit(one) for _ in range(2)]]
    assert sorted(did) == [False, True]
    assert (kind(connection), contents(connection)) == ("p", rows)
    assert forward(connection).phases == ()


def test_mistakes_are_told_apart(connection: AutocommitConnection) -> None:
    with pytest.raises(TableMissing):
        forward(connection)
    connection.execute(PLAIN)
    with pytest.raises(NothingToUndo):
        back(connection)
    forward(connection)
    with pytest.raises(DeclarationChanged):
        convert(connection, policy(column="body"), now=NOW)
    connection.execute("alter table event detach partition event_legacy")
    with pytest.raises(LegacyGone):
        back(connection)
    connection.execute("drop table event_legacy")
    with pytest.raises(TableReplaced):
        undo(connection, policy())
    with pytest.raises(TableReplaced):
        convert(connection, policy(), now=NOW + timedelta(days=1))
    connection.execute("delete from dbplatform.partition_conversion")
    with pytest.raises(AlreadyPartitioned):
        forward(connection)
