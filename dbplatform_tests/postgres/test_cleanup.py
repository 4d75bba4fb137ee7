"""What is left over goes, and nothing that somebody needs: indexes, slots, databases, folders, history."""

from __future__ import annotations

import fcntl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import OperationalError

from dbplatform.backups import scratch
from dbplatform.backups.physical import cluster
from dbplatform.errors import LockNotAcquired
from dbplatform.ledger.ledger import Ledger
from dbplatform.maintenance.cleanup import history, indexes, slots
from dbplatform.maintenance.cleanup.leftovers import Leftover, Part, apply_cleanup, plan_cleanup
from dbplatform.maintenance.cleanup.policy import CleanupPolicy, HistoryPolicy, SlotPolicy
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.embedded import account
from dbplatform.postgres.words import Interval
from dbplatform_tests.typed import Type, typist

NOW = datetime.now(UTC)
_ITEM = "create table item (id int primary key, name text); insert into item values (1, 'pen'), (2, 'pen')"
_WAIT = "select pg_sleep(0.02)"


def nobody(name: str) -> str | None:
    return None


@pytest.fixture
def shop(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute(_ITEM)
        yield connection


def fates(connection: AutocommitConnection) -> dict[str, str]:
    return {one.name: one.fate for one in indexes.find_invalid(connection, needed=nobody)}


def invalid_of(connection: AutocommitConnection) -> list[str]:
    rows = connection.execute("select indexrelid::regclass::text from pg_index where not indisvalid order by 1")
    return [name for (name,) in rows.fetchall()]


def left(connection: AutocommitConnection, name: str) -> Leftover:
    [found] = [one for one in indexes.find_invalid(connection, needed=nobody) if one.name == name]
    return found


@contextmanager
def building(target: Target, statement: str) -> Iterator[tuple[psycopg.Connection[Any], psycopg.Connection[Any]]]:
    """The statement, begun in a session of its own and waiting for a transaction that another one holds open."""
    with (
        psycopg.connect(target.url, autocommit=True) as holder,
        psycopg.connect(target.url, autocommit=True) as builder,
    ):
        holder.execute("begin; update item set name = name where id = 1")

        def build() -> None:
            with pytest.raises(psycopg.errors.AdminShutdown):
                builder.execute(statement.encode())

        thread = threading.Thread(target=build)
        thread.start()
        with psycopg.connect(target.url, autocommit=True) as looking:
            asked = "select exists (select from pg_index where not indisvalid and not indisready)"
            while not (row := looking.execute(asked).fetchone()) or not row[0]:
                looking.execute(_WAIT)
            yield holder, looking
            looking.execute("select pg_terminate_backend(%s)", (builder.info.backend_pid,))
            thread.join()
            gone = "select not exists (select from pg_stat_activity where pid = %s)"
            while not (row := looking.execute(gone, (builder.info.backend_pid,)).fetchone()) or not row[0]:
                looking.execute(_WAIT)


def test_an_index_that_is_being_built_is_left_and_goes_once_its_builder_is_killed(
    database: Target, shop: AutocommitConnection
) -> None:
    with building(database, "create index concurrently item_name on item (name)"):
        assert fates(shop) == {"public.item_name": "leave"}
        assert not indexes.drop_invalid(shop, left(shop, "public.item_name"), needed=nobody)
    assert fates(shop) == {"public.item_name": "remove"}
    assert "CREATE INDEX item_name ON public.item" in left(shop, "public.item_name").reason
    assert indexes.drop_invalid(shop, left(shop, "public.item_name"), needed=nobody)
    assert invalid_of(shop) == []


def test_what_a_killed_reindex_left_goes_and_the_constraint_keeps_its_index(
    database: Target, shop: AutocommitConnection
) -> None:
    with building(database, "reindex index concurrently item_pkey"):
        assert fates(shop) == {"public.item_pkey_ccnew": "leave"}
    leftover = left(shop, "public.item_pkey_ccnew")
    assert leftover.fate == "remove"
    assert indexes.drop_invalid(shop, leftover, needed=nobody)
    assert invalid_of(shop) == []
    with pytest.raises(psycopg.errors.UniqueViolation):
        shop.execute("insert into item values (1, 'twice')")


def test_an_index_on_which_something_rests_or_that_work_needs_is_never_dropped(shop: AutocommitConnection) -> None:
    shop.execute("create index item_name on item (name); create index wanted on item (name)")
    shop.execute("create table parts (id int) partition by range (id)")
    shop.execute("create table part_1 partition of parts for values from (1) to (2)")
    shop.execute("create index parts_id on only parts (id)")
    shop.execute("create table known (id int not null); create unique index known_id on known (id)")
    shop.execute("alter table known replica identity using index known_id")
    shop.execute(
        "update pg_index set indisvalid = false where indexrelid in "
        "('item_pkey'::regclass, 'wanted'::regclass, 'known_id'::regclass)"
    )

    def needed(name: str) -> str | None:
        return "V2__wanted.sql builds it" if name == "wanted" else None

    found = indexes.find_invalid(shop, needed=needed)
    assert {one.name: one.fate for one in found} == {
        "public.item_pkey": "tell",
        "public.known_id": "tell",
        "public.parts_id": "tell",
        "public.wanted": "leave",
    }
    assert [indexes.drop_invalid(shop, one, needed=needed) for one in found] == [False] * 4
    assert len(invalid_of(shop)) == 4


def test_an_index_that_became_valid_since_it_was_planned_is_not_dropped(shop: AutocommitConnection) -> None:
    shop.execute("create index item_name on item (name)")
    shop.execute("update pg_index set indisvalid = false where indexrelid = 'item_name'::regclass")
    part = Part(
        kind=indexes.KIND,
        find=lambda: indexes.find_invalid(shop, needed=nobody),
        remove=lambda one: indexes.drop_invalid(shop, one, needed=nobody),
    )
    planned = plan_cleanup("shop", [part])
    assert [one.name for one in planned.due] == ["public.item_name"]
    shop.execute("reindex index item_name")
    report = apply_cleanup(planned, [part])
    assert [one.outcome for one in report.cleaned] == ["gone"]
    assert shop.execute("select indisvalid from pg_index where indexrelid = 'item_name'::regclass").fetchone() == (
        True,
    )


@pytest.mark.parametrize(
    ("rebuilt", "ends"),
    [("reindex index item_name", True), ("lock table item in share mode", False)],
    ids=["at once", "for a while"],
)
def test_an_index_that_a_person_rebuilds_once_it_was_looked_at_is_not_dropped(
    database: Target, shop: AutocommitConnection, rebuilt: str, ends: bool
) -> None:
    shop.execute("create index item_name on item (name)")
    shop.execute("update pg_index set indisvalid = false where indexrelid = 'item_name'::regclass")
    leftover = left(shop, "public.item_name")
    with psycopg.connect(database.url, autocommit=ends) as person:

        def looked(name: str) -> None:
            person.execute(rebuilt.encode())

        assert not indexes.drop_invalid(shop, leftover, needed=looked)
    assert shop.execute("select 'item_name'::regclass::text").fetchone() == ("item_name",)


def test_an_index_of_a_table_in_use_is_dropped_once_that_ends_or_left_for_the_next_time(
    database: Target, shop: AutocommitConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexes, "_TRIES", 3)
    shop.execute("create index item_name on item (name)")
    shop.execute("update pg_index set indisvalid = false where indexrelid = 'item_name'::regclass")
    leftover, looks = left(shop, "public.item_name"), 0
    with psycopg.connect(database.url) as reader:
        reader.execute("select * from item")
        with pytest.raises(LockNotAcquired):
            indexes.drop_invalid(shop, leftover, needed=nobody)
        assert fates(shop) == {"public.item_name": "remove"}

        def ends_later(name: str) -> None:
            nonlocal looks
            looks += 1
            if looks == 3:
                reader.rollback()

        assert indexes.drop_invalid(shop, leftover, needed=ends_later)
    assert looks == 3


def test_a_part_that_cannot_be_looked_at_hides_no_other_and_is_not_clean() -> None:
    def broken() -> list[Leftover]:
        raise PermissionError("not yours")

    removed: list[str] = []

    def remove(one: Leftover) -> bool:
        removed.append(one.name)
        if one.name == "stuck":
            raise PermissionError("held")
        return True

    parts = [
        Part(kind="broken", find=broken, remove=remove),
        Part(
            kind="b",
            find=lambda: [Leftover(kind="b", name=name, reason="") for name in ("stuck", "old")],
            remove=remove,
        ),
    ]
    planned = plan_cleanup("shop", parts)
    assert (len(planned.due), dict(planned.unknown)) == (2, {"broken": "not yours"})
    report = apply_cleanup(planned, parts)
    assert removed == ["stuck", "old"]
    assert [one.name for one in report.removed] == ["old"]
    assert report.problems == ("b stuck: held", "broken: not yours")


def test_a_failure_of_the_ledger_is_of_that_part_alone() -> None:
    def fails() -> None:
        raise OperationalError("select 1", {}, psycopg.OperationalError("the ledger is gone"))

    def unseen() -> list[Leftover]:
        fails()
        return []

    parts = [
        Part(kind="unseen", find=unseen),
        Part(kind="unnoted", find=list, remember=fails),
        Part(kind="old", find=lambda: [Leftover(kind="old", name="old", reason="")], remove=lambda one: True),
    ]
    planned = plan_cleanup("shop", parts)
    assert dict(planned.unknown) == {"unseen": "the ledger is gone"}
    report = apply_cleanup(planned, parts)
    assert [one.name for one in report.removed] == ["old"]
    assert report.problems == ("unseen: the ledger is gone", "unnoted: the ledger is gone")


@pytest.fixture
def slot(database: Target) -> Iterator[str]:
    """A slot of this test alone."""
    name = f"reader_{database.name.removeprefix('test_')}"
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("select pg_create_physical_replication_slot(%s, true)", (name,))
        yield name
        session.execute(
            "select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s", (name,)
        )


def test_a_stale_slot_is_told_for_a_day_and_dropped_only_where_its_name_is_declared(
    shop: AutocommitConnection, ledger: Ledger, slot: str
) -> None:
    shop.execute("insert into item select i, 'more' from generate_series(3, 1000) i")
    never = SlotPolicy(holding=1)
    declared = SlotPolicy(holding=1, drop=[slot])
    late = NOW + timedelta(days=8)

    def stale(policy: SlotPolicy, now: datetime) -> list[str]:
        found = slots.find_stale_slots(shop, ledger, "shop", policy, now=now)
        return [one.fate for one in found if one.name == slot]

    def tell(policy: SlotPolicy, now: datetime) -> None:
        slots.remember_slots(shop, ledger, "shop", policy, now=now)

    assert stale(declared, NOW) == []
    assert stale(SlotPolicy(holding=1 << 50), late) == []
    assert stale(declared, late) == ["tell"]
    tell(declared, late)
    assert stale(declared, late + timedelta(hours=23)) == ["tell"]
    assert stale(never, late + timedelta(days=300)) == ["tell"]
    due = late + timedelta(hours=25)
    assert stale(declared, due) == ["remove"]
    [leftover] = [one for one in slots.find_stale_slots(shop, ledger, "shop", declared, now=due) if one.name == slot]
    assert not slots.drop_slot(shop, ledger, "shop", never, leftover, now=due)
    # Its reader was here: the day begins again.
    shop.execute("select pg_replication_slot_advance(%s, pg_current_wal_lsn())", (slot,))
    assert stale(declared, due) != ["remove"]
    assert not slots.drop_slot(shop, ledger, "shop", declared, leftover, now=due)

    shop.execute("insert into item select i, 'more' from generate_series(1001, 2000) i")
    tell(declared, due + timedelta(days=8))
    after = due + timedelta(days=10)
    assert stale(declared, after) == ["remove"]
    assert slots.drop_slot(shop, ledger, "shop", declared, leftover, now=after)
    assert stale(declared, after) == []
    tell(declared, after)
    with connect(ledger.target, work="test") as session:
        assert session.execute("select count(*) from ledger.idle_slot where slot_name = %s", (slot,)).fetchone() == (0,)


def test_nothing_is_prepared_or_left_in_files_on_a_fresh_server(shop: AutocommitConnection) -> None:
    assert slots.find_prepared(shop, Interval.parse("1 hour"), now=NOW + timedelta(days=1)) == []
    assert slots.find_files(shop, now=NOW + timedelta(days=1)) == []


def test_a_scratch_database_goes_once_its_session_is_gone(database: Target, shop: AutocommitConnection) -> None:
    name = "dbplatform_trial_0123456789ab"
    shop.execute(f'create database "{name}"'.encode())
    try:
        with connect(database, work="restore 0123456789ab"):
            assert name not in scratch.left_behind(shop)
        while name not in scratch.left_behind(shop):  # the session ends a moment after its client
            shop.execute(_WAIT)
        assert scratch.left_behind(shop)[name] > 1_000_000
    finally:
        scratch.drop(shop, name)


def test_a_recovery_folder_goes_once_its_process_is_gone_and_an_empty_place_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared, home = tmp_path / "shared", tmp_path / "recoveries"
    monkeypatch.setattr(cluster, "SHARED_ROOT", shared)
    monkeypatch.setattr(account, "SHARED_ROOT", shared)
    instead = cluster._instead_of(home)
    for folder in (
        home / "recovery-dead",
        home / "recovery-busy",
        instead / "recovery-dead",
        shared / "recoveries-of-another" / "recovery-dead",
        shared / "recoveries-empty",
    ):
        folder.mkdir(parents=True)
        if folder.name.startswith("recovery-"):
            (folder / "lock").touch()
    with (home / "recovery-busy" / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = cluster.find_killed(home)
        assert [str(one.relative_to(tmp_path)) for one in found] == [
            "recoveries/recovery-dead",
            f"shared/{instead.name}/recovery-dead",
            "shared/recoveries-empty",
        ]
        assert [cluster.remove_killed(one) for one in found] == [True, True, True]
        assert cluster.find_killed(home) == ()
        assert [one.name for one in home.iterdir()] == ["recovery-busy"]
        assert [one.name for one in shared.glob("recoveries-*")] == ["recoveries-of-another"]


_HISTORY = """
    insert into ledger.operation (id, database, kind, actor, status, started_at)
    select gen_random_uuid(), 'shop', kind, 'x', 'succeeded', now() - age from (values
        ('seed', interval '5 years'), ('migrate', '4 years'), ('migrate', '3 years'), ('backup', '3 years'),
        ('backup', '1 day')) as o (kind, age);
    insert into ledger.quality_run (run_id, database, started_at, finished_at, verdict)
    select id, 'shop', now() - age, now() - age, 'passed' from (values
        ('q1', interval '5 years'), ('q2', '4 years'), ('q3', '3 years'), ('q4', '2 years'), ('q5', '1 day'),
        ('q0', '6 years')
    ) as r (id, age);
    insert into ledger.quality_result (run_id, table_name, name, type, status, severity, blocking, message)
    select run, 'public.item', name, 'x', status, 'error', false, '' from (values
        ('q1', 'a', 'passed'), ('q2', 'a', 'passed'), ('q3', 'a', 'failed'), ('q4', 'a', 'failed'),
        ('q5', 'a', 'failed'), ('q1', 'b', 'passed'), ('q5', 'b', 'passed')) as c (run, name, status);
    insert into ledger.report (run_id, database, location, sha256) values ('q3', 'shop', 'x', 'x');
    insert into ledger.report_review (run_id, sha256, reviewer, comment, way)
    values ('q0', 'x', 'ada', 'the list was late', 'command line');
    insert into ledger.backup
        (id, database, kind, status, location, started_at, taken_at, bytes, sha256, proven_at, removed_at)
    select id, 'shop', 'logical', status, '/x', now() - age, now() - age, 1, 'x', now() - age,
           case status when 'pruned' then now() - age end
    from (values ('b1', 'pruned', interval '5 years'), ('b2', 'pruned', '4 years'), ('b3', 'pruned', '3 years'),
                 ('b4', 'complete', '2 years')) as b (id, status, age);
    insert into ledger.drill (id, backup_id, database, status, started_at)
    select gen_random_uuid(), id, 'shop', 'proven', now() - age from (values
        ('b1', interval '5 years'), ('b2', '4 years'), ('b3', '3 years'), ('b4', '2 years')) as d (id, age);
    insert into ledger.archive
        (id, database, name, table_name, rows, bytes, sha256, content_hash, location, backup_id, status)
    values (gen_random_uuid(), 'shop', 'old', 'public.item', 1, 1, 'x', 'x', '/x', 'b2', 'deleted');
    insert into ledger.trial (database, kind, fingerprint, result, tried_at)
    select 'shop', kind, kind || age, '{}', now() - age from (values
        ('schema', interval '5 years'), ('schema', '4 years'), ('rehearsal', '3 years')) as t (kind, age);
    insert into ledger.operation (id, database, kind, actor, status, started_at)
    values (gen_random_uuid(), 'other', 'seed', 'x', 'succeeded', now() - interval '9 years'),
           (gen_random_uuid(), 'other', 'seed', 'x', 'succeeded', now() - interval '8 years');
"""


def test_history_goes_when_it_is_old_but_nothing_that_something_kept_depends_on(ledger: Ledger) -> None:
    policy = HistoryPolicy()
    with psycopg.connect(ledger.target.url, autocommit=True) as session:
        session.execute(_HISTORY.encode())

        def column(query: str) -> list[str]:
            return [row[0] for row in session.execute(query.encode()).fetchall()]

        found = history.find_old(ledger, "shop", policy, now=datetime.now(UTC))
        assert {one.name: one.reason.split()[0] for one in found} == {
            "operations": "2",
            "runs of checks": "2",
            "drills": "2",
            "trials": "1",
        }
        for name in ("operations", "runs of checks", "drills", "removed backups", "trials", "advice", "settings"):
            leftover = Leftover(kind=history.KIND, name=name, reason="")
            went = history.forget(ledger, "shop", policy, leftover, now=datetime.now(UTC))
            assert went == (name not in ("advice", "settings"))
            assert not history.forget(ledger, "shop", policy, leftover, now=datetime.now(UTC)), "once"
        kinds = "select kind from ledger.operation where database = 'shop' order by started_at"
        assert column(kinds) == ["seed", "migrate", "backup"]
        # q0: its report was reviewed; q2: the last that passed; q3: it has a report; q5: the newest.
        assert column("select run_id from ledger.quality_run order by 1") == ["q0", "q2", "q3", "q5"]
        assert column("select comment from ledger.report_review") == ["the list was late"]
        assert column("select distinct run_id from ledger.quality_result order by 1") == ["q2", "q3", "q5"]
        # b2: rows were archived behind it; b4 is there.
        assert column("select id from ledger.backup order by 1") == ["b2", "b4"]
        assert column("select backup_id from ledger.drill order by 1") == ["b2", "b4"]
        assert column("select kind from ledger.trial order by 1") == ["rehearsal", "schema"]
        assert column("select count(*)::text from ledger.operation where database = 'other'") == ["2"]


_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, scratch_url_env: SHOP_URL, environment: test}
  migrations: {}
  reports: {retain: 1 month}
  maintenance: {cleanup: {history: {operations: 1 year}}}
"""


@pytest.fixture
def type_(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Type:
    migrations = tmp_path / "defs" / "shop" / "migrations"
    migrations.mkdir(parents=True)
    (migrations.parent / "defs.yaml").write_text(_DECLARATION)
    (migrations / "V1__item.sql").write_text(f"{_ITEM};")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cluster, "SHARED_ROOT", tmp_path / "shared")  # nothing of others on this machine is touched
    return typist(tmp_path, capsys)


def test_a_person_sees_the_plan_confirms_it_and_only_what_nobody_needs_is_gone(
    type_: Type, database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    assert type_("cleanup", "shop").out == "nothing is left over\n"
    assert type_("migrate", "apply", "shop").code == 0
    (tmp_path / "defs" / "shop" / "migrations" / "V2__names.sql").write_text(
        "create unique index concurrently item_name on item (name);\n"
    )
    assert type_("migrate", "apply", "shop").code == 3, "two rows have the same name"
    with psycopg.connect(database.url, autocommit=True) as session, psycopg.connect(ledger.target.url) as history_:
        with pytest.raises(psycopg.errors.UniqueViolation):
            session.execute("create unique index concurrently by_hand on item (name)")
        history_.execute(
            "insert into ledger.operation (id, database, kind, actor, status, started_at) "
            "select gen_random_uuid(), 'shop', 'backup', 'x', 'succeeded', now() - n * interval '1 year' "
            "from generate_series(2, 4) n"
        )
        history_.commit()
        planned = type_("cleanup", "shop", "--dry-run", "--json")
        assert planned.code == 0, planned.err
        found = {(one["kind"], one["name"]): one["fate"] for one in planned.json["leftovers"]}
        assert found == {
            ("invalid index", "public.by_hand"): "remove",
            ("invalid index", "public.item_name"): "leave",
            ("history", "operations"): "remove",
        }
        refused = type_("cleanup", "shop")
        assert (refused.code, "Remove 2 leftovers for good?" in refused.err) == (2, True)
        assert "V2__names.sql builds it: dbplatform migrate apply shop" in refused.out

        done = type_("cleanup", "shop", "--yes", "--json")
        assert (done.code, {one["outcome"] for one in done.json["cleaned"]}) == (0, {"removed"})
        rows = session.execute("select indexrelid::regclass::text from pg_index where not indisvalid").fetchall()
        assert rows == [("item_name",)]
        kinds = history_.execute(
            "select kind, status from ledger.operation order by started_at desc limit 1"
        ).fetchone()
        assert kinds == ("cleanup", "succeeded")
    assert type_("cleanup", "shop", "--yes").code == 0


def test_what_only_a_person_may_decide_makes_exit_1(type_: Type, database: Target) -> None:
    assert type_("migrate", "apply", "shop").code == 0
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("update pg_index set indisvalid = false where indexrelid = 'item_pkey'::regclass")
    found = type_("cleanup", "shop")
    assert found.code == 1
    assert "reindex index concurrently public.item_pkey" in " ".join(found.out.split())


def test_what_is_declared_of_a_clean_up_is_in_words_of_time_and_size() -> None:
    found = CleanupPolicy.model_validate(
        {"history": {"runs": "2 years"}, "slots": {"inactive_for": "3 days", "holding": "10GB", "drop": ["old_reader"]}}
    )
    assert (str(found.history.runs), str(found.history.operations)) == ("24 months", "13 months")
    assert (found.slots.holding, found.slots.drop) == (10 << 30, ["old_reader"])
    with pytest.raises(ValueError, match="drop"):
        CleanupPolicy.model_validate({"slots": {"drop": ["*"]}})
