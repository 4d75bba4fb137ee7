"""Rows leave their table by way of a file, exactly those that were exported, and come back as they were.

One module, because every claim is about the same table before and after.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pyarrow.parquet as pq
import pytest

from dbplatform import progress
from dbplatform.archiving import errors, export, pace
from dbplatform.archiving.apply import apply_archive
from dbplatform.archiving.catalogue import get_archive, list_archives
from dbplatform.archiving.pace import Throttle
from dbplatform.archiving.plan import plan_archive
from dbplatform.archiving.staging import Staging
from dbplatform.errors import LockNotAcquired
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.locks import advisory_lock
from dbplatform.storage.folder import FolderPlace
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    NOW,
    ORDERS,
    archive,
    ask,
    at,
    content,
    fill,
    flip,
    only,
    policy,
    prove,
    restore,
    verify,
)


def count(target: Target, table: str = "orders") -> int:
    return int(ask(target, f"select count(*) from {table}"))  # noqa: S608


def plan(target: Target, **fields: Any) -> Any:
    with connect(target, work="test") as connection:
        return plan_archive(connection, policy(**fields), now=NOW)


def test_a_plan_counts_the_old_rows_and_changes_nothing(database: Target) -> None:
    fill(database, ORDERS)
    before = content(database)
    found = plan(database)
    assert (found.rows, found.shape.key, found.cutoff) == (700, ("id",), datetime(2026, 6, 1, tzinfo=UTC))
    assert found.bytes > 700 * 30
    assert [c["storage"] for c in found.as_json()["columns"]] == ["int64", "timestamptz", "string", "string", "string"]
    assert content(database) == before
    assert ask(database, "select to_regnamespace('dbplatform')") is None


def test_an_archive_and_its_restore_give_the_same_content_hash(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    before = content(database)
    report = archive(database, ledger, tmp_path)
    assert (report.deleted, report.kept, report.uncovered) == (700, {}, 0)
    assert count(database) == 300
    entry = only(ledger)
    assert (entry.status, entry.rows, entry.deleted_rows) == ("deleted", 700, 700)
    assert entry.location == str(tmp_path / DATABASE / "old" / f"{entry.id}.parquet")
    assert set(entry.as_json()) >= {
        "id",
        "name",
        "table",
        "rows",
        "bytes",
        "sha256",
        "location",
        "status",
        "created_at",
    }
    assert [file.name for file in Path(entry.location).parent.iterdir()] == [f"{entry.id}.parquet"]
    back = restore(database, ledger, entry.id)
    assert (back.restored, back.already_there) == (700, 0)
    assert content(database) == before
    assert only(ledger).status == "restored"
    fill(database, "insert into orders (at) values (now())")
    assert ask(database, "select max(id) from orders") == 1001, "the sequence goes on where it was"


@pytest.mark.parametrize("most", [0, 10**9])
def test_a_file_is_loaded_once_where_its_rows_can_wait_and_again_by_blocks_where_not(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    fill(database, ORDERS)
    before = content(database)
    monkeypatch.setattr("dbplatform.archiving.apply.MOST_KEPT_BYTES", most)
    monkeypatch.setattr(export, "BLOCK_ROWS", 300)
    loads: list[int] = []
    add = Staging.add
    monkeypatch.setattr(Staging, "add", lambda stage, block: (loads.append(block.rows), add(stage, block))[1])
    late = "update orders set note = 'late' where id = 450"
    with at("verify", lambda: fill(database, late)):
        assert archive(database, ledger, tmp_path).deleted == 699
    assert loads == [300, 300, 100] * (1 if most else 2)
    fill(database, "delete from orders where id = 450")
    restore(database, ledger, only(ledger).id)
    assert count(database) == 999
    fill(
        database,
        "insert into orders (id, at, amount, note) overriding system value"
        " select 450, timestamptz '2026-01-01' + 450 * interval '5 hours', 450 / 7.0, 'note ' || 450 % 13",
    )
    assert content(database) == before


def test_the_hash_of_an_archive_is_that_of_a_table_with_just_its_rows(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path)
    restore(database, ledger, only(ledger).id, into="orders_2026")
    assert count(database) == 300
    assert content(database, "orders_2026") == only(ledger).content_hash
    assert only(ledger).status == "deleted", "aside is not back"


def test_a_value_that_has_the_same_text_in_other_bytes_is_unchanged(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, "create table orders (id int primary key, at date not null, a int[])")
    fill(database, "insert into orders values (1, '2026-01-01', '{null, 1}'); update orders set a[1] = 2")
    bytes_ = "select a = '{2,1}', record_image_eq(row(a), row('{2,1}'::int[])) from orders"
    assert ask(database, bytes_) == (True, False), "the place of a null stays in an array that has none any more"
    before = content(database)
    assert archive(database, ledger, tmp_path).deleted == 1
    restore(database, ledger, only(ledger).id)
    assert content(database) == before


def test_archiving_again_finds_nothing_to_do(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path)
    again = archive(database, ledger, tmp_path)
    assert (again.archives, again.deleted, again.uncovered) == ((), 0, 0)
    assert len(list_archives(ledger, DATABASE)) == 1


def test_restoring_twice_adds_nothing(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    before = content(database)
    archive(database, ledger, tmp_path)
    restore(database, ledger, only(ledger).id)
    again = restore(database, ledger, only(ledger).id)
    assert (again.restored, again.already_there) == (0, 700)
    assert content(database) == before


def test_a_byte_flipped_before_the_delete_step_keeps_every_row(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    before = content(database)
    with at("verify", lambda: flip(Path(only(ledger).location))), pytest.raises(errors.ArchiveDamaged) as caught:
        archive(database, ledger, tmp_path)
    assert only(ledger).location in caught.value.message
    assert content(database) == before
    assert only(ledger).status == "verified"
    with pytest.raises(errors.ArchiveDamaged):
        archive(database, ledger, tmp_path)
    flip(Path(only(ledger).location))
    assert archive(database, ledger, tmp_path).deleted == 700


def test_a_file_that_does_not_give_back_the_rows_deletes_nothing(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ORDERS)
    before = content(database)
    blocks = export._blocks

    def forging(*arguments: Any) -> Any:
        for lines in blocks(*arguments):
            yield [line.replace(b'"note 7"', b'"note 8"') for line in lines]

    monkeypatch.setattr(export, "_blocks", forging)
    with pytest.raises(errors.ReadBackDiffers, match="Nothing was deleted"):
        archive(database, ledger, tmp_path)
    assert content(database) == before
    assert only(ledger).status == "exported"


def test_a_row_that_begins_to_match_between_copy_and_delete_is_not_lost(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    """Seed 003: INSERT ... SELECT, then a DELETE that evaluates its predicate again."""
    fill(database, ORDERS)
    late = (
        "update orders set at = '2026-02-02' where id between 701 and 710; insert into orders (at) values ('2020-1-1')"
    )
    with at("verify", lambda: fill(database, late)):
        report = archive(database, ledger, tmp_path)
    assert report.deleted == 700
    assert count(database) == 301
    assert ask(database, "select count(*) from orders where at < '2026-06-01'") == 11


def test_a_row_changed_between_export_and_delete_stays_and_is_reported(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    late = "update orders set note = 'late' where id = 5; delete from orders where id = 6"
    with at("verify", lambda: fill(database, late)):
        report = archive(database, ledger, tmp_path)
    assert (report.deleted, report.kept, report.kept_changed) == (698, {"changed": 1, "gone": 1}, 2)
    assert ask(database, "select note from orders where id = 5") == "late"
    back = restore(database, ledger, only(ledger).id)
    assert (back.restored, back.left_out) == (698, 2)
    assert count(database) == 999
    assert ask(database, "select note from orders where id = 5") == "late", "the newer row is not overwritten"


def test_a_row_that_the_backup_has_not_seen_stays(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    proof = prove(database)
    fill(database, "update orders set note = 'after' where id <= 3; insert into orders (at) values ('2025-1-1')")
    report = archive(database, ledger, tmp_path, proof=proof)
    assert (report.deleted, report.uncovered) == (697, 4)
    assert ask(database, "select count(*) from orders where at < '2026-06-01'") == 4
    assert archive(database, ledger, tmp_path).deleted == 4, "a newer backup holds them"


def test_a_row_newer_than_the_backup_stays_also_when_it_is_frozen(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, "create table orders (id int primary key, at date); insert into orders values (1, '2020-01-01')")
    proof = prove(database)
    fill(database, "insert into orders values (2, '2020-01-01')")
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute("vacuum (freeze) orders")
    report = archive(database, ledger, tmp_path, proof=proof)
    assert (report.deleted, report.uncovered) == (1, 1)
    assert ask(database, "select array_agg(id) from orders") == [2]


def test_a_row_rewritten_with_the_same_contents_after_the_backup_stays(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    with at("verify", lambda: fill(database, "update orders set note = note where id = 9")):
        report = archive(database, ledger, tmp_path)
    assert (report.deleted, report.kept) == (699, {"uncovered": 1})


def test_a_row_of_a_savepoint_that_was_open_during_the_backup_stays(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, "create table orders (id int primary key, at timestamptz)")
    with psycopg.connect(database.url) as writer:
        writer.execute("insert into orders values (1, '2020-1-1')")
        with writer.transaction():
            writer.execute("insert into orders values (2, '2020-1-1')")
        # Another id is given out, so that the snapshot ends beyond the savepoint's.
        fill(database, "insert into orders values (3, '2020-1-1')")
        proof = prove(database)
        believed = ask(
            database,
            f"select pg_visible_in_snapshot(x.id, '{proof.snapshot}') from "  # noqa: S608
            f"(select (split_part('{proof.snapshot}', ':', 2)::int8 - 2)::text::xid8) x (id)",
        )
        assert believed, "PostgreSQL takes the savepoint's id for one that had ended"
    report = archive(database, ledger, tmp_path, proof=proof)
    assert (report.deleted, report.uncovered) == (0, 3)
    assert count(database) == 3


@pytest.mark.parametrize("wrong", ["none", "system", "database", "future", "timeline", "unreadable"])
def test_without_a_proof_of_this_database_nothing_is_deleted(
    database: Target, ledger: Ledger, tmp_path: Path, wrong: str
) -> None:
    fill(database, ORDERS)
    good = prove(database)
    fields = {
        "system": {"system_identifier": good.system_identifier + 1},
        "database": {"database_oid": good.database_oid + 1},
        "future": {"snapshot": f"{good.next_id + 10_000}:{good.next_id + 10_000}:"},
        "timeline": {"timeline_id": 77},
        "unreadable": {"snapshot": "nothing"},
    }
    given = None if wrong == "none" else type(good)(**{**_fields(good), **fields[wrong]})
    with connect(database, work="test") as connection, pytest.raises(errors.NotProven) as caught:
        apply_archive(
            connection,
            policy(),
            ledger,
            FolderPlace(tmp_path),
            database=DATABASE,
            proof=given,
            recheck=lambda: given,
            now=NOW,
        )
    assert "dbplatform drill shop" in str(caught.value)
    assert (count(database), list(tmp_path.iterdir())) == (1000, [])


def _fields(proof: Any) -> dict[str, Any]:
    return {name: getattr(proof, name) for name in proof.__slots__}


def test_a_proof_that_is_lost_before_the_delete_step_deletes_nothing(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, tmp_path, recheck=lambda: None)
    assert (count(database), only(ledger).status) == (1000, "verified")
    assert archive(database, ledger, tmp_path).deleted == 700
    assert only(ledger).status == "deleted"


def test_a_table_without_a_key_is_refused(database: Target) -> None:
    fill(database, "create table orders (id int unique, at timestamptz)")
    with pytest.raises(errors.NoKey, match=r"public\.orders"):
        plan(database)


def test_a_unique_index_over_not_null_columns_is_key_enough(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(
        database,
        'create table orders (a int not null, "B %" text not null, at timestamp, unique (a, "B %"));'
        "insert into orders select i % 7, i, timestamp '2026-01-01' from generate_series(1, 50) i",
    )
    before = content(database)
    assert archive(database, ledger, tmp_path).deleted == 50
    restore(database, ledger, only(ledger).id)
    assert content(database) == before


@pytest.mark.parametrize("action", ["no action", "cascade", "set null"])
def test_rows_that_others_refer_to_are_refused(database: Target, ledger: Ledger, tmp_path: Path, action: str) -> None:
    fill(database, ORDERS)
    fill(database, f"create table lines (id int primary key, order_id bigint references orders on delete {action})")
    fill(database, "insert into lines values (1, 3), (2, 900)")
    with pytest.raises(errors.RowsReferenced, match=r"1 of the rows .* public\.lines \(lines_order_id_fkey\)"):
        archive(database, ledger, tmp_path)
    assert count(database) == 1000
    fill(database, "delete from lines where id = 1")
    assert archive(database, ledger, tmp_path).deleted == 700


def test_a_row_that_is_referred_to_only_since_the_export_stays(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    late = (
        "create table lines (id int primary key, order_id bigint references orders on delete cascade);"
        "insert into lines values (1, 3)"
    )
    with at("verify", lambda: fill(database, late)):
        report = archive(database, ledger, tmp_path)
    assert (report.deleted, report.kept) == (699, {"referenced": 1})
    assert count(database, "lines") == 1


def test_a_reference_that_is_committed_while_the_batch_waits_is_seen(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(
        database,
        ORDERS + "create table lines (id int primary key, order_id bigint references orders on delete cascade)",
    )
    with psycopg.connect(database.url) as writer:
        writer.execute("insert into lines values (1, 3)")
        patient = Throttle(batch_rows=70, pause_s=0, lock_timeout_ms=50, tries=3)
        report = archive(database, ledger, tmp_path, throttle=patient, sleep=lambda _: writer.commit())
    assert (report.deleted, report.kept) == (699, {"referenced": 1})
    assert count(database, "lines") == 1


def test_a_row_held_back_by_a_trigger_stays_and_is_reported(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(
        database,
        ORDERS + "create function hold() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger hold before delete on orders for each row when (old.id = 4) execute function hold()",
    )
    report = archive(database, ledger, tmp_path)
    assert (report.deleted, report.kept) == (699, {"held": 1})
    assert count(database) == 301


def test_a_lock_that_is_never_released_gives_up_and_the_next_run_goes_on(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    pauses: list[float] = []
    stubborn = Throttle(batch_rows=100, pause_s=0.2, lock_timeout_ms=20, tries=5)
    with psycopg.connect(database.url) as holder:
        holder.execute("select from orders where id = 400 for update")
        with pytest.raises(LockNotAcquired):
            archive(database, ledger, tmp_path, throttle=stubborn, sleep=pauses.append)
    assert ask(database, "select count(*), min(id) from orders") == (601, 400), "all before the locked row have left"
    assert len(pauses) == 7 + 3 + 4, "batches that succeeded, tries that were halved, tries that were the last ones"
    assert archive(database, ledger, tmp_path).deleted == 700


def test_batches_double_after_twenty_successes_and_pause_after_each(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    dealt: list[int] = []
    pauses: list[float] = []

    def listen(fact: progress.Progress) -> None:
        if fact.task == "archive old delete":
            dealt.append(fact.done)

    with progress.listening(listen):
        archive(
            database,
            ledger,
            tmp_path,
            throttle=Throttle(batch_rows=10, most_rows=20, pause_s=0.2),
            sleep=pauses.append,
            clock=iter(range(1000)).__next__,
        )
    steps = [after - before for before, after in pairwise(dealt)]
    assert steps == [10] * 20 + [20] * 25
    assert pauses == [1.2] * 45


def test_a_batch_that_took_long_is_followed_by_a_half_as_large(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    dealt: list[int] = []

    def listen(fact: progress.Progress) -> None:
        if fact.task == "archive old delete":
            dealt.append(fact.done)

    with progress.listening(listen):
        archive(
            database,
            ledger,
            tmp_path,
            throttle=Throttle(batch_rows=200, slow_s=0.5),
            clock=iter(range(1000)).__next__,
        )
    assert [after - before for before, after in pairwise(dealt)][:6] == [200, 100, 50, 25, 12, 6]
    assert only(ledger).deleted_rows == 700


def test_no_row_leaves_while_a_replica_is_behind(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ORDERS)
    with connect(database, work="test") as connection:
        assert pace.farthest_behind(connection) is None, "this server has no replica"
    behind = [("north", 60 * 2**20), ("north", 51 * 2**20), ("north", 50 * 2**20), None]
    monkeypatch.setattr(pace, "farthest_behind", lambda _: behind.pop(0) if len(behind) > 1 else behind[0])
    pauses: list[float] = []
    archive(database, ledger, tmp_path, throttle=Throttle(batch_rows=700, pause_s=0, rest=0), sleep=pauses.append)
    assert (pauses, count(database)) == ([1.0, 1.0, 0.0], 300)


def test_a_replica_that_stays_behind_ends_the_run_and_the_next_goes_on(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ORDERS)
    with monkeypatch.context() as patched:
        patched.setattr(pace, "farthest_behind", lambda _: ("north", 60 * 2**20))
        with pytest.raises(errors.ReplicaBehind, match="north still has 60 MB"):
            archive(database, ledger, tmp_path, throttle=Throttle(lag_tries=3))
    assert (count(database), only(ledger).status) == (1000, "verified")
    assert archive(database, ledger, tmp_path).deleted == 700


def test_two_at_once_archive_every_row_once(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    before = content(database)
    proof = prove(database)
    reports: list[int] = []
    threads = [
        threading.Thread(
            target=lambda: reports.append(archive(database, ledger, tmp_path, proof=proof, sleep=_nap).deleted)
        )
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reports) == [0, 700]
    restore(database, ledger, only(ledger).id)
    assert content(database) == before


def _nap(seconds: float) -> None:
    threading.Event().wait(min(seconds, 0.02))


def test_a_held_lock_is_named(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    with connect(database, work="holder") as holder, advisory_lock(holder, "archive"), pytest.raises(LockNotAcquired):
        archive(database, ledger, tmp_path, wait_ms=0)
    assert count(database) == 1000


def test_a_restore_over_other_contents_is_refused_before_anything_is_written(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path)
    fill(database, "insert into orders (id, at) overriding system value values (7, '2026-01-01'), (8, '2026-01-01')")
    before = content(database)
    with pytest.raises(errors.RestoreConflict, match=r"2 of the archived rows .* \(id\) = \(7\), \(id\) = \(8\)"):
        restore(database, ledger, only(ledger).id)
    assert content(database) == before


def test_a_trigger_that_changes_restored_rows_stops_the_restore(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path)
    fill(
        database,
        "create function stamp() returns trigger language plpgsql as 'begin new.note = 1; return new; end';"
        "create trigger stamp before insert on orders for each row execute function stamp()",
    )
    with pytest.raises(errors.RestoreFailed, match="triggers"):
        restore(database, ledger, only(ledger).id)
    assert count(database) == 300


def test_verify_finds_a_truncated_a_missing_and_a_changed_file(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    archive(database, ledger, tmp_path)
    entry = only(ledger)
    path = Path(entry.location)
    good = path.read_bytes()
    assert verify(database, ledger, entry.id).passed
    path.write_bytes(good[:-100])
    assert "SHA-256" in str(verify(database, ledger, entry.id).problem)
    with pytest.raises(errors.ArchiveDamaged):
        restore(database, ledger, entry.id)
    path.write_bytes(good)
    flip(path)
    assert not verify(database, ledger, entry.id).passed
    path.unlink()
    assert "cannot be read" in str(verify(database, ledger, entry.id).problem)
    with pytest.raises(errors.UnknownArchive):
        verify(database, ledger, "none")
    with pytest.raises(errors.ArchiveOfAnotherDatabase):
        get_archive(ledger, "other", entry.id)


def test_a_changed_table_is_not_deleted_from_and_the_way_out_works(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, tmp_path, recheck=lambda: None)
    fill(database, "alter table orders add column extra int")
    with pytest.raises(errors.ArchiveTableChanged, match="columns were changed"):
        archive(database, ledger, tmp_path)
    assert count(database) == 1000
    assert restore(database, ledger, only(ledger).id).already_there == 700
    assert archive(database, ledger, tmp_path).deleted == 700


def test_an_archive_whose_file_is_gone_before_any_row_has_left_starts_anew(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS)
    with pytest.raises(errors.NotProven):
        archive(database, ledger, tmp_path, recheck=lambda: None)
    first = only(ledger)
    Path(first.location).unlink()
    assert archive(database, ledger, tmp_path).deleted == 700
    assert only(ledger).id != first.id
    Path(only(ledger).location).unlink()
    assert archive(database, ledger, tmp_path).archives == ()
    assert only(ledger).status == "deleted", "one whose rows have left stays listed"


def test_a_folder_that_cannot_be_written_is_named(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, ORDERS)
    (tmp_path / "file").write_text("")
    with pytest.raises(errors.ArchiveNotWritten, match="could not be written"):
        archive(database, ledger, tmp_path / "file")
    assert (count(database), list_archives(ledger, DATABASE)) == (1000, [])


def test_rows_behind_row_level_security_are_an_error_not_a_gap(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(database, ORDERS + "alter table orders enable row level security")
    with psycopg.connect(database.url, autocommit=True) as admin:
        admin.execute("create role limited; grant select on orders to limited")
        try:
            with connect(database, work="test") as connection:
                connection.execute("set role limited")
                with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
                    plan_archive(connection, policy(), now=NOW)
        finally:
            admin.execute("drop owned by limited; drop role limited")
    assert count(database) == 1000


def test_many_blocks_are_read_and_deleted_one_after_the_other(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "BLOCK_ROWS", 64)
    fill(database, ORDERS)
    before = content(database)
    assert archive(database, ledger, tmp_path).deleted == 700
    assert pq.ParquetFile(only(ledger).location).num_row_groups == 11
    restore(database, ledger, only(ledger).id)
    assert content(database) == before


def test_a_partitioned_table_is_archived_and_a_missing_partition_is_named(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(
        database,
        """
        create table orders (id int, at date, primary key (id, at)) partition by range (at);
        create table orders_a partition of orders for values from ('2026-01-01') to ('2026-03-01');
        create table orders_b partition of orders for values from ('2026-03-01') to ('2026-09-01');
        insert into orders select i, date '2026-01-01' + i from generate_series(0, 170) i;
        """,
    )
    before = content(database)
    assert archive(database, ledger, tmp_path).deleted == 151
    assert ask(database, "select min(at)::text from orders") == "2026-06-01"
    fill(database, "alter table orders detach partition orders_a")
    with pytest.raises(errors.RestorePartitionMissing, match=r"\(0,2026-01-01\).*partition apply shop --start"):
        restore(database, ledger, only(ledger).id)
    assert count(database) == 20
    fill(database, "alter table orders attach partition orders_a for values from ('2026-01-01') to ('2026-03-01')")
    restore(database, ledger, only(ledger).id)
    assert content(database) == before


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("create table orders (id int primary key, at text)", errors.UnsuitableArchiveColumn, "text"),
        ("create table orders (id int primary key, on_day date)", errors.ArchiveColumnMissing, "no column at"),
        (
            "create table orders (id int primary key, at date); create table more () inherits (orders)",
            errors.UnsuitableTable,
            "inherit",
        ),
    ],
)
def test_unsuitable_tables_are_refused_by_name(
    database: Target, script: str, error: type[Exception], words: str
) -> None:
    fill(database, script)
    with pytest.raises(error, match=words):
        plan(database)
