"""What is due: statistics, dead and old rows, bloat, settings; each caused on a real server, and found and mended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.maintenance import MaintenanceRun
from dbplatform.maintenance import record
from dbplatform.maintenance.apply import Run
from dbplatform.maintenance.errors import OnStandby
from dbplatform.maintenance.model import Item
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.pressure import pressure
from dbplatform_tests.postgres.embedded_support import wait_until
from dbplatform_tests.postgres.maintenance_support import (
    NOW,
    OFF,
    item,
    maintain,
    outcome,
    pace,
    planned,
    policy,
    subjects,
)

Session = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def by_hand(database: Target) -> Iterator[Session]:
    with psycopg.connect(database.url, autocommit=True) as session:
        yield session


def test_a_table_that_nobody_analyzed_comes_before_one_whose_statistics_are_stale(
    database: Target, by_hand: Session
) -> None:
    by_hand.execute(f"create table known (a int) {OFF}".encode())
    by_hand.execute("insert into known select generate_series(1, 10000)")
    by_hand.execute("select pg_stat_force_next_flush()")
    by_hand.execute("analyze known")
    by_hand.execute("insert into known select generate_series(1, 2000)")
    by_hand.execute(f"create table new (a int) {OFF}".encode())
    by_hand.execute("insert into new select generate_series(1, 10)")
    by_hand.execute("select pg_stat_force_next_flush()")

    found = planned(database, kinds=["analyze"])

    assert [one for one in subjects(found, "analyze") if one.startswith("public.")] == ["public.new", "public.known"]
    assert "was never analyzed" in item(found, "analyze", "public.new").reason
    assert item(found, "analyze", "public.known").evidence == {
        "rows": 12000,
        "changed_rows": 2000,
        "ever_analyzed": True,
    }


def test_a_partitioned_table_is_analyzed_because_autovacuum_never_does(database: Target, by_hand: Session) -> None:
    by_hand.execute("create table event (a int) partition by range (a)")
    for part in range(2):
        by_hand.execute(
            f"create table event_{part} partition of event for values from ({part * 1000}) to ({part * 1000 + 1000})"
            f" {OFF}".encode()
        )
    by_hand.execute("insert into event select generate_series(0, 1999)")
    by_hand.execute("select pg_stat_force_next_flush()")
    by_hand.execute("analyze event_0")
    by_hand.execute("analyze event_1")

    assert "autovacuum never analyzes" in item(planned(database, kinds=["analyze"]), "analyze", "public.event").reason
    maintain(database, kinds=["analyze"])
    assert subjects(planned(database, kinds=["analyze"]), "analyze") == []
    kept = by_hand.execute("select count(*) from pg_stats where tablename = 'event' and inherited").fetchone()
    assert kept == (1,)
    # New rows of a partition, which the parent's statistics do not know.
    by_hand.execute("delete from event_1")
    by_hand.execute("select pg_stat_force_next_flush()")
    by_hand.execute("vacuum analyze event_1")
    assert "public.event" in subjects(planned(database, kinds=["analyze"]), "analyze")


def test_dead_rows_are_vacuumed_without_cutting_off_the_end_and_are_gone(database: Target, by_hand: Session) -> None:
    by_hand.execute(f"create table item (a int) {OFF}".encode())
    by_hand.execute("insert into item select generate_series(1, 10000)")
    by_hand.execute("delete from item where a > 5000")
    by_hand.execute("select pg_stat_force_next_flush()")
    found = item(planned(database, kinds=["vacuum"]), "vacuum", "public.item")
    assert found.evidence["dead_rows"] == 5000
    assert found.statements == ('VACUUM (SKIP_LOCKED, TRUNCATE off, PARALLEL 0) "public"."item"',)
    pages = by_hand.execute("select pg_relation_size('item')").fetchone()

    done = outcome(maintain(database, kinds=["vacuum"]), "vacuum", "public.item")

    assert (done.state, done.item.evidence["dead_rows"], done.after["dead_rows"]) == ("done", 5000, 0)
    assert by_hand.execute("select pg_relation_size('item')").fetchone() == pages, "the end was cut off"
    assert subjects(planned(database, kinds=["vacuum"]), "vacuum") == []


def old_table(by_hand: Session) -> None:
    """A table whose row is half way to the vacuum that cannot be put off."""
    by_hand.execute("create table old (a int) with (autovacuum_enabled = off, autovacuum_freeze_max_age = 100000)")
    by_hand.execute("insert into old values (1)")
    by_hand.execute("create temporary table used (a int)")
    # Each block with an exception is a transaction of its own.
    by_hand.execute(
        "do $$ begin for i in 1..52000 loop begin insert into used values (i); exception when others then null; end; "
        "end loop; end $$"
    )


def test_rows_near_the_age_of_the_forced_vacuum_are_frozen(database: Target, by_hand: Session) -> None:
    old_table(by_hand)
    found = item(planned(database, kinds=["vacuum"], table="old"), "vacuum", "public.old")
    assert found.priority >= 80
    assert "at 100,000 a vacuum comes that cannot be put off" in found.reason
    assert found.statements[0].startswith("VACUUM (FREEZE, ")

    done = outcome(maintain(database, kinds=["vacuum"]), "vacuum", "public.old")

    assert (done.state, done.after["xid_age"] < 1000) == ("done", True)


def test_rows_that_could_not_be_frozen_are_left_with_who_needs_them(database: Target, by_hand: Session) -> None:
    with psycopg.connect(database.url, application_name="a report") as holder:
        holder.execute("select pg_current_xact_id()")
        old_table(by_hand)
        found = outcome(maintain(database, kinds=["vacuum"]), "vacuum", "public.old")
    assert found.state == "left"
    assert found.after["xid_age"] > 50_000
    assert "its old rows could not be frozen, they are kept for backend" in found.words
    assert "(a report)" in found.words


def test_a_table_that_is_only_inserted_into_is_vacuumed(database: Target, by_hand: Session) -> None:
    by_hand.execute(
        "create table log (a int) with (autovacuum_enabled = off, autovacuum_vacuum_insert_threshold = 1000, "
        "autovacuum_vacuum_insert_scale_factor = 0)"
    )
    by_hand.execute("insert into log select generate_series(1, 5000)")
    by_hand.execute("select pg_stat_force_next_flush()")
    assert "5,000 rows were inserted" in item(planned(database, kinds=["vacuum"]), "vacuum", "public.log").reason
    done = outcome(maintain(database, kinds=["vacuum"]), "vacuum", "public.log")
    assert (done.item.evidence["not_visible"], done.after["not_visible"]) == (1.0, 0.0)


def bloated_index(by_hand: Session) -> None:
    """A table of 50,000 rows whose index keeps the pages of 40,000 that are gone."""
    by_hand.execute(f"create table item (a int primary key, b text) {OFF}".encode())
    by_hand.execute("insert into item select i, md5(i::text) from generate_series(1, 50000) i")
    by_hand.execute("delete from item where a % 5 <> 0")
    by_hand.execute("select pg_stat_force_next_flush()")
    by_hand.execute("vacuum analyze item")


@pytest.mark.parametrize("counted", [False, True])
def test_a_bloated_index_is_found_by_the_estimate_and_by_counting_and_rebuilt(
    database: Target, by_hand: Session, counted: bool
) -> None:
    bloated_index(by_hand)
    if counted:
        by_hand.execute("create extension pgstattuple")
    found = item(planned(database, kinds=["reindex"]), "reindex", "public.item_pkey")
    assert found.evidence["counted"] is counted
    assert 0.7 < found.evidence["bloat"] < 0.9, "four of five entries are gone"
    assert found.statements == ('REINDEX INDEX CONCURRENTLY "public"."item_pkey"',)

    done = outcome(maintain(database, kinds=["reindex"]), "reindex", "public.item_pkey")

    assert done.state == "done"
    assert done.after["bloat"] < 0.1
    assert done.after["valid"]
    assert done.after["bytes"] < found.bytes / 3
    assert planned(database, kinds=["reindex"]).items == ()


def test_indexes_of_partitions_and_toast_tables_are_rebuilt_too(database: Target, by_hand: Session) -> None:
    by_hand.execute("create table event (a int primary key, body text) partition by range (a)")
    by_hand.execute(f"create table event_0 partition of event for values from (0) to (100000) {OFF}".encode())
    by_hand.execute("alter table event_0 alter body set storage external, set (toast.autovacuum_enabled = off)")
    by_hand.execute("insert into event select i, repeat('x', 2100) from generate_series(1, 8000) i")
    by_hand.execute("delete from event where a % 10 <> 0")
    by_hand.execute("select pg_stat_force_next_flush()")
    by_hand.execute("vacuum analyze event_0")
    toast = by_hand.execute(
        "select 'pg_toast.' || quote_ident(x.relname) from pg_class c join pg_index i on i.indrelid = c.reltoastrelid "
        "join pg_class x on x.oid = i.indexrelid where c.relname = 'event_0'"
    ).fetchone()
    assert toast is not None

    report = maintain(database, kinds=["reindex"])

    assert {str(one.item.subject) for one in report.of("done")} == {"public.event_0_pkey", toast[0]}
    assert all(one.after["bloat"] < 0.15 for one in report.of("done"))


def test_what_cannot_be_rebuilt_concurrently_is_told_and_not_locked(database: Target, by_hand: Session) -> None:
    by_hand.execute("create extension btree_gist")
    by_hand.execute(f"create table booking (room int, exclude using btree (room with =)) {OFF}".encode())
    by_hand.execute("insert into booking select generate_series(1, 50000)")
    by_hand.execute("delete from booking where room % 5 <> 0")
    by_hand.execute("select pg_stat_force_next_flush()")
    by_hand.execute("vacuum analyze booking")
    found = planned(database, kinds=["reindex"])
    [told] = [one for one in found.not_possible if one.subject == "public.booking_room_excl"]
    assert "guards an exclusion constraint" in told.reason
    assert told.hint.endswith("REINDEX INDEX public.booking_room_excl")
    assert "public.booking_room_excl" not in subjects(found, "reindex")


def test_an_excluded_table_is_left_alone_with_its_partitions_and_indexes(database: Target, by_hand: Session) -> None:
    bloated_index(by_hand)
    by_hand.execute("create table event (a int) partition by range (a)")
    by_hand.execute(f"create table event_0 partition of event for values from (0) to (10000) {OFF}".encode())
    by_hand.execute("insert into event select generate_series(0, 9999)")
    by_hand.execute("select pg_stat_force_next_flush()")
    found = planned(database, policy(exclude=["public.item", "public.event"]))
    assert not {str(one.table) for one in found.items} & {"public.item", "public.event", "public.event_0"}


def test_one_table_is_maintained_with_its_partitions_and_no_other(database: Target, by_hand: Session) -> None:
    for name in ("mine", "other"):
        by_hand.execute(f"create table {name} (a int) {OFF}".encode())
        by_hand.execute(f"insert into {name} select generate_series(1, 1000)".encode())
    by_hand.execute("select pg_stat_force_next_flush()")
    assert {str(one.table) for one in planned(database, table="mine").items} == {"public.mine"}
    with pytest.raises(TableMissing):
        planned(database, table="nowhere")


def test_without_pg_repack_a_bloated_table_is_told_with_what_is_missing(database: Target, by_hand: Session) -> None:
    bloated_index(by_hand)
    [told] = [one for one in planned(database, kinds=["repack"]).not_possible if one.subject == "public.item"]
    assert "hold nothing (an estimate), and the extension pg_repack is not in this database" in told.reason
    assert "CREATE EXTENSION pg_repack" in told.hint


def large(by_hand: Session) -> None:
    """A table of which a column has more common values than its statistics hold."""
    by_hand.execute("create table sale (id int, product int)")
    by_hand.execute(
        "insert into sale select i, case when i % 2 = 0 then i % 300 else i end from generate_series(1, 30000) i"
    )
    by_hand.execute("create index on sale (product)")
    by_hand.execute("update sale set id = id where id <= 3000")
    by_hand.execute("analyze sale")
    by_hand.execute("select pg_stat_force_next_flush()")


def test_settings_of_a_large_table_are_proposed_with_their_undo(database: Target, by_hand: Session) -> None:
    large(by_hand)
    report = maintain(database, policy(due={"large_table_rows": 10_000}), kinds=["autovacuum", "statistics"])
    assert {(one.item.kind, one.state) for one in report.outcomes} == {
        ("autovacuum", "proposed"),
        ("statistics", "proposed"),
    }
    assert by_hand.execute("select reloptions from pg_class where relname = 'sale'").fetchone() == (None,)


def test_settings_are_applied_where_that_is_declared_and_the_undo_takes_them_back(
    database: Target, by_hand: Session
) -> None:
    large(by_hand)
    by_hand.execute("alter table sale set (autovacuum_vacuum_threshold = 77)")
    apply = policy(settings="apply", due={"large_table_rows": 10_000})
    kinds = ["autovacuum", "statistics"]
    before = _settings(by_hand)

    report = maintain(database, apply, kinds=kinds)

    settings = outcome(report, "autovacuum", "public.sale")
    assert settings.after["options"]["autovacuum_vacuum_scale_factor"] == "0.02"
    assert outcome(report, "statistics", "public.sale").after == {"targets": {"product": 500}}
    held = by_hand.execute(
        "select cardinality(most_common_vals) from pg_stats where tablename = 'sale' and attname = 'product'"
    ).fetchone()
    assert held == (150,), "the new target was not used"
    assert planned(database, apply, kinds=kinds).items == ()
    for one in report.of("done"):
        assert one.item.undo is not None
        by_hand.execute(one.item.undo.encode())
    assert _settings(by_hand) == before


def test_targets_that_are_set_are_done_with_their_undo_where_the_analyze_did_not_get_its_lock(
    database: Target, by_hand: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    large(by_hand)
    apply = policy(settings="apply", due={"large_table_rows": 10_000}, limits={"lock_timeout": "100 ms"})
    with psycopg.connect(database.url) as holder:

        def locked(run: Run, item: Item) -> str:
            for statement in item.statements[:-1]:
                run.connection.execute(statement.encode())
            holder.execute("lock table sale in share update exclusive mode")
            return once(run, item)

        once = Run._once
        monkeypatch.setattr(Run, "_once", locked)
        report = maintain(database, apply, kinds=["statistics"], with_pace=pace(apply, sleep=lambda _: None))
    found = outcome(report, "statistics", "public.sale")
    assert (found.state, found.after) == ("done", {"targets": {"product": 500}})
    assert "still to come is ANALYZE (SKIP_LOCKED)" in found.words


def test_the_undo_of_a_setting_is_in_the_ledger_before_it_is_changed(
    database: Target, by_hand: Session, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    large(by_hand)
    apply = policy(settings="apply", due={"large_table_rows": 10_000})
    id_ = record.begin(ledger, "shop", mode="autovacuum", run_id=None, now=NOW)

    def noted() -> dict[str, Any]:
        with ledger.session() as session:
            run = session.get(MaintenanceRun, id_)
            assert run is not None
            return run.report

    def killed(run: Run, item: Item) -> str:
        once(run, item)
        raise KeyboardInterrupt

    once = Run._once
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_once", killed)
        with pytest.raises(KeyboardInterrupt):
            maintain(database, apply, kinds=["autovacuum"], changing=lambda item: record.changing(ledger, id_, item))
    before: Any = noted()["changing"]
    assert _settings(by_hand) != (None, [None, None])
    by_hand.execute(before["undo"].encode())
    assert _settings(by_hand) == (None, [None, None])

    for one in maintain(database, apply, kinds=["autovacuum"]).outcomes:
        record.keep(ledger, id_, one)
    assert noted() == {}, "the item has it now"


def _settings(by_hand: Session) -> tuple[object, ...] | None:
    return by_hand.execute(
        "select c.reloptions, array_agg(nullif(a.attstattarget, -1) order by a.attnum) from pg_class c "
        "join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 where c.relname = 'sale' group by 1"
    ).fetchone()


def test_a_role_without_rights_is_told_what_to_grant(database: Target, by_hand: Session) -> None:
    by_hand.execute(f"create table item (a int) {OFF}".encode())
    by_hand.execute("insert into item select generate_series(1, 1000)")
    by_hand.execute("create role reader_of_items login password 'only for tests'")
    try:
        by_hand.execute("select pg_stat_force_next_flush()")
        target = Target(
            database.name,
            psycopg.conninfo.make_conninfo(database.url, user="reader_of_items", password="only for tests"),
        )
        [told] = [one for one in planned(target, kinds=["analyze"]).not_possible if one.subject == "public.item"]
        assert told.reason == "the user may not analyze it"
    finally:
        by_hand.execute("drop role reader_of_items")


def test_a_user_who_cannot_see_others_sees_who_waits_and_is_told_which_limits_hold_nothing_back(
    database: Target, by_hand: Session
) -> None:
    by_hand.execute(f"create table item (a int) {OFF}".encode())
    by_hand.execute("insert into item select generate_series(1, 1000)")
    by_hand.execute("select pg_stat_force_next_flush()")
    by_hand.execute("create role blind login password 'only for tests'")
    by_hand.execute("alter table item owner to blind")
    asked = "select count(*) from pg_locks where not granted and relation = 'item'::regclass"
    target = Target(
        database.name, psycopg.conninfo.make_conninfo(database.url, user="blind", password="only for tests")
    )
    try:
        with psycopg.connect(database.url) as holder, psycopg.connect(database.url) as writer:
            holder.execute("lock table item in share row exclusive mode")
            waiting = threading.Thread(target=lambda: writer.execute("insert into item values (0)"))
            waiting.start()
            wait_until(lambda: by_hand.execute(asked.encode()).fetchone() == (1,))
            with connect(target, work="test") as blind:
                assert pressure(blind).waiting_sessions >= 1
            holder.rollback()
            waiting.join()
        [told] = [one for one in maintain(target, kinds=["analyze"]).not_possible if one.kind == "limits"]
        assert "active_sessions and replica_lag hold nothing back" in told.reason
        assert told.hint == 'GRANT pg_monitor TO "blind"'
        by_hand.execute("insert into item select generate_series(1, 1000)")
        by_hand.execute("select pg_stat_force_next_flush()")
        by_hand.execute("grant pg_monitor to blind")
        granted = maintain(target, kinds=["analyze"])
        assert outcome(granted, "analyze", "public.item").state == "done"
        assert not [one for one in granted.not_possible if one.kind == "limits"]
    finally:
        by_hand.execute("drop owned by blind")
        by_hand.execute("drop role blind")


def test_a_standby_is_refused(database: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "dbplatform.maintenance.catalog._FACTS",
        "select true, 170000, null, false, false, true, extract(epoch from now())::float8",
    )
    with pytest.raises(OnStandby):
        planned(database)
