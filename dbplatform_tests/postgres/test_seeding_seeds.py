"""Seeds on a real server: loaded once, exactly, and found again when killed in the middle.

One module, because every claim begins with the same folder of seeds.
"""

from __future__ import annotations

import gzip
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from dbplatform.errors import LockNotAcquired, UsageError
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.progress import Progress, listening
from dbplatform.seeding import csv_text
from dbplatform.seeding.apply import SeedReport, apply_seed
from dbplatform.seeding.errors import (
    BadCsv,
    SeedChanged,
    SeedFailed,
    SeedForeignKeyBroken,
    SeedHeaderWrong,
    SeedRowsLost,
    TableNotEmpty,
)
from dbplatform.seeding.plan import SeedPlan, plan_seed
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.verify import SeedVerification, verify_seed

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DEV = SeedPolicy(profile="dev", directory="seeds/dev")
SCHEMA = """
    create table airlines (carrier text primary key, name text);
    create table flights (id int primary key, carrier text references airlines, at timestamptz, delay int);
"""
MANIFEST = """
nulls: [NA, ""]
shift:
  newest: {file: flights.csv, column: time}
  by: 1 week
tables:
- {table: airlines, file: airlines.csv}
- {table: flights, file: flights.csv, columns: {id: id, carrier: line, at: time, delay: delay}, shift: [at]}
"""


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute(SCHEMA)
        yield connection


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    """Airlines and 2,000 flights of the year 2013, hour by hour."""
    (tmp_path / "airlines.csv").write_text("carrier,name\nUA,United\nAA,American\n")
    start = datetime(2013, 1, 1, tzinfo=UTC)
    rows = (
        f"{n},{'UA' if n % 3 else 'NA'},{(start + timedelta(hours=n)).isoformat()},{n % 50 or 'NA'},left out"
        for n in range(2000)
    )
    (tmp_path / "flights.csv").write_text("\n".join(["id,line,time,delay,rest", *rows]) + "\n")
    (tmp_path / "seed.yaml").write_text(MANIFEST)
    return tmp_path


def plan(connection: AutocommitConnection, seeds: Path, *, now: datetime = NOW) -> SeedPlan:
    return plan_seed(connection, seeds, DEV, database="air", now=now)


def apply(connection: AutocommitConnection, seeds: Path, *, now: datetime = NOW, lock_ms: int = 5000) -> SeedReport:
    return apply_seed(connection, seeds, DEV, database="air", now=now, lock_timeout_ms=lock_ms)


def verify(
    connection: AutocommitConnection, seeds: Path, archived: Mapping[str, int] | None = None
) -> SeedVerification:
    return verify_seed(connection, seeds, DEV, database="air", archived=archived)


def hashes(connection: AutocommitConnection) -> list[str]:
    return [catalog.content_hash(connection, Relation("public", name)) for name in ("airlines", "flights")]


def one(connection: AutocommitConnection, question: str) -> object:
    row = connection.execute(question.encode()).fetchone()
    assert row is not None
    return row[0]


def test_apply_loads_every_row_and_verify_passes(connection: AutocommitConnection, seeds: Path) -> None:
    report = apply(connection, seeds)
    assert [(table.table, table.rows, table.loaded) for table in report.tables] == [
        ("public.airlines", 2, True),
        ("public.flights", 2000, True),
    ]
    assert one(connection, "select count(*) from flights where carrier is null") == 667
    assert one(connection, "select sum(delay) from flights") == sum(n % 50 for n in range(2000))
    found = verify(connection, seeds)
    assert found.passed
    assert [(r.constraint, r.validated, r.orphans) for r in found.references] == [("flights_carrier_fkey", True, 0)]
    assert one(connection, "select reltuples from pg_class where relname = 'flights'") == 2000


def test_plan_only_reads(connection: AutocommitConnection, seeds: Path) -> None:
    document = plan(connection, seeds).as_json()
    assert [(t["table"], t["status"], t["rows"]) for t in document["tables"]] == [
        ("public.airlines", "pending", None),
        ("public.flights", "pending", None),
    ]
    assert one(connection, "select to_regnamespace('dbplatform')") is None
    assert one(connection, "select count(*) from flights") == 0


def test_a_second_apply_loads_nothing_even_when_rows_were_archived_meanwhile(
    connection: AutocommitConnection, seeds: Path
) -> None:
    apply(connection, seeds)
    connection.execute("delete from flights where id < 500")
    report = apply(connection, seeds)
    assert report.loaded_rows == 0
    assert [table["status"] for table in report.as_json()["tables"]] == ["applied", "applied"]
    assert one(connection, "select count(*) from flights") == 1500
    assert plan(connection, seeds).pending == ()


def test_a_recorded_table_is_not_read(database: Target, connection: AutocommitConnection, seeds: Path) -> None:
    apply(connection, seeds)
    with psycopg.connect(database.url) as other:
        other.execute("lock table airlines, flights in access exclusive mode")
        assert apply(connection, seeds, lock_ms=10).loaded_rows == 0


def test_the_data_moves_by_whole_weeks_to_the_present(connection: AutocommitConnection, seeds: Path) -> None:
    apply(connection, seeds)
    newest = one(connection, "select max(at) from flights")
    assert isinstance(newest, datetime)
    source = datetime(2013, 1, 1, tzinfo=UTC) + timedelta(hours=1999)
    assert NOW - timedelta(days=7) < newest <= NOW
    assert (newest - source) % timedelta(days=7) == timedelta(0)


def test_the_shift_is_decided_once(connection: AutocommitConnection, seeds: Path) -> None:
    connection.execute("insert into flights values (1)")
    with pytest.raises(TableNotEmpty):
        apply(connection, seeds)
    connection.execute("truncate flights")
    connection.execute("alter table flights add check (id < 10)")
    with pytest.raises(SeedFailed):
        apply(connection, seeds)
    decided = one(connection, "select steps from dbplatform.seed_shift")
    connection.execute("alter table flights drop constraint flights_id_check")
    report = apply(connection, seeds, now=NOW + timedelta(days=70))
    assert report.shift is not None
    assert report.shift.steps == decided
    assert one(connection, "select max(at) <= timestamptz '2026-03-15 12:00+00' from flights") is True


def test_a_changed_file_is_refused_after_it_was_applied(connection: AutocommitConnection, seeds: Path) -> None:
    apply(connection, seeds)
    with (seeds / "airlines.csv").open("a") as file:
        file.write("DL,Delta\n")
    with pytest.raises(SeedChanged) as caught:
        apply(connection, seeds)
    assert "Name the key of its rows" in str(caught.value)
    assert one(connection, "select count(*) from airlines") == 2


@pytest.mark.parametrize(
    ("before", "after"), [('[NA, ""]', "[NA]"), ("1 week", "2 weeks"), ("delay: delay", "delay: id"), ("[at]", "[]")]
)
def test_a_changed_manifest_is_refused_after_it_was_applied(
    connection: AutocommitConnection, seeds: Path, before: str, after: str
) -> None:
    apply(connection, seeds)
    assert before in MANIFEST
    (seeds / "seed.yaml").write_text(MANIFEST.replace(before, after))
    with pytest.raises(SeedChanged):
        plan(connection, seeds)


def test_a_table_with_rows_of_its_own_is_never_doubled(connection: AutocommitConnection, seeds: Path) -> None:
    connection.execute("insert into airlines values ('B6', 'JetBlue')")
    with pytest.raises(TableNotEmpty, match=r"public\.airlines"):
        apply(connection, seeds)
    assert one(connection, "select count(*) from airlines") == 1


def test_a_second_profile_for_the_same_tables_is_refused(connection: AutocommitConnection, seeds: Path) -> None:
    apply(connection, seeds)
    other = SeedPolicy(profile="test", directory="x")
    with pytest.raises(TableNotEmpty, match="profile test"):
        apply_seed(connection, seeds, other, database="air", now=NOW)


@pytest.mark.parametrize(("scale", "says"), [(10, "No table of this seed is generated"), (0, "makes no sense")])
def test_a_scale_that_would_change_nothing_is_refused(
    connection: AutocommitConnection, seeds: Path, scale: float, says: str
) -> None:
    with pytest.raises(UsageError, match=says):
        apply_seed(connection, seeds, DEV, database="air", now=NOW, rows_scale=scale)


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.csv").write_text(text)
    return path


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ("carrier,nam", r"The table public\.airlines has no column nam; it has carrier, name"),
        ("carrier,name,name", "names the column 'name' twice"),
    ],
)
def test_a_wrong_header_is_one_sentence_with_the_names(
    connection: AutocommitConnection, tmp_path: Path, header: str, says: str
) -> None:
    folder(tmp_path, airlines=f"{header}\nUA,United\n")
    with pytest.raises(UsageError, match=says):
        plan(connection, tmp_path)


def test_a_column_that_the_file_lacks_is_named(connection: AutocommitConnection, seeds: Path) -> None:
    (seeds / "seed.yaml").write_text(MANIFEST.replace("carrier: line", "carrier: airline"))
    with pytest.raises(SeedHeaderWrong, match=r"flights\.csv has no column airline; it has id, line, time"):
        plan(connection, seeds)


def test_a_column_that_is_no_time_cannot_be_shifted(connection: AutocommitConnection, seeds: Path) -> None:
    (seeds / "seed.yaml").write_text(MANIFEST.replace("[at]", "[delay]"))
    with pytest.raises(UsageError, match="its type is integer"):
        plan(connection, seeds)


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ('carrier,name\nUA,"two\nlines"\n\nAA,x\nUA,again\n', None, SeedFailed),
        ('carrier,name\nUA,"two\nlines"\n\nAA,x,y\n', 5, BadCsv),
        ("carrier,name\nUA,x\n,nobody\n", 3, SeedFailed),
    ],
)
def test_a_bad_row_is_shown_with_its_line_and_leaves_nothing(
    connection: AutocommitConnection, tmp_path: Path, text: str, line: int | None, error: type[Exception]
) -> None:
    folder(tmp_path, airlines=text)
    with pytest.raises(error) as caught:
        apply(connection, tmp_path)
    if line is not None:
        assert caught.value.line == line  # type: ignore[attr-defined]
    assert caught.value.file == "airlines.csv"  # type: ignore[attr-defined]
    assert one(connection, "select count(*) from airlines") == 0
    assert one(connection, "select count(*) from dbplatform.seed") == 0


@pytest.mark.parametrize("value", ["soon", "99999999999"])
def test_a_bad_value_is_shown_with_its_line_behind_blank_and_broken_lines(
    connection: AutocommitConnection, tmp_path: Path, value: str
) -> None:
    connection.execute("create table notes (id int, note text)")
    folder(tmp_path, notes=f'id,note\n1,"a\nb"\n\n2,x\n{value},y\n3,z\n')
    with pytest.raises(SeedFailed, match=value) as caught:
        apply(connection, tmp_path)
    assert caught.value.line == 6


def test_a_text_that_is_not_utf_8_is_shown_with_its_line(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "airlines.csv").write_bytes(b"carrier,name\nUA,x\nAA,Soci\xe9t\xe9\n")
    with pytest.raises(SeedFailed, match="UTF8") as caught:
        apply(connection, tmp_path)
    assert caught.value.line == 3


def test_a_row_without_a_partition_says_what_to_do(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table logs (at date) partition by range (at)")
    folder(tmp_path, logs="at\n2026-01-01\n")
    with pytest.raises(SeedFailed) as caught:
        apply(connection, tmp_path)
    assert "partition apply" in str(caught.value)


@pytest.mark.parametrize("deferred", ["", "deferrable initially deferred"])
def test_a_broken_foreign_key_is_named_and_leaves_nothing(
    connection: AutocommitConnection, tmp_path: Path, deferred: str
) -> None:
    connection.execute(f"create table planes (id int, carrier text references airlines {deferred})".encode())
    folder(tmp_path, planes="id,carrier\n1,XX\n")
    with pytest.raises(SeedForeignKeyBroken, match=r"planes_carrier_fkey.*XX"):
        apply(connection, tmp_path)
    assert one(connection, "select count(*) from planes") == 0
    assert one(connection, "select count(*) from dbplatform.seed") == 0


def test_rows_that_a_trigger_keeps_back_are_noticed(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute(
        "create function skip() returns trigger language plpgsql as 'begin return null; end';"
        "create trigger t before insert on airlines for each row when (new.carrier = 'AA') execute function skip()"
    )
    folder(tmp_path, airlines="carrier,name\nUA,x\nAA,y\n")
    with pytest.raises(SeedRowsLost, match="2 rows, COPY took 1"):
        apply(connection, tmp_path)
    assert one(connection, "select count(*) from airlines") == 0


def test_quotes_line_ends_backslashes_unicode_and_nulls_arrive(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    connection.execute("create table notes (id int, note text)")
    (tmp_path / "notes.csv").write_bytes(
        '\ufeffid,note\r\n1,"say ""hi"", then\nleave"\r\n2,C:\\new\\table\r\n3,"\tZürich 東京 🛫"\r\n'
        '4,\r\n5,""\r\n6,\\N\r\n'
        "7,\\.\r\n8,NULL\r\n".encode()
    )
    apply(connection, tmp_path)
    assert [note for (note,) in connection.execute("select note from notes order by id").fetchall()] == [
        'say "hi", then\nleave',
        "C:\\new\\table",
        "\tZürich 東京 🛫",
        None,
        "",
        "\\N",
        "\\.",
        "NULL",
    ]


def test_gzip_and_zip_files_are_streamed(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "01_airlines.csv.gz").write_bytes(gzip.compress(b"carrier,name\nUA,United\n"))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("f.csv", "id,carrier\n1,UA\n")
    (tmp_path / "02_flights.csv.zip").write_bytes(packed.getvalue())
    apply(connection, tmp_path)
    assert one(connection, "select carrier from flights") == "UA"


def test_a_damaged_archive_is_refused_and_leaves_nothing(connection: AutocommitConnection, tmp_path: Path) -> None:
    rows = "".join(f"{n},{os.urandom(8).hex()}\n" for n in range(20_000))
    whole = gzip.compress(f"carrier,name\n{rows}".encode())
    (tmp_path / "airlines.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadCsv, match="cannot be unpacked"):
        apply(connection, tmp_path)
    assert one(connection, "select count(*) from airlines") == 0


def test_a_file_cut_in_the_middle_of_a_row_leaves_nothing_and_loads_once_it_is_whole(
    connection: AutocommitConnection, seeds: Path
) -> None:
    file = seeds / "flights.csv"
    whole = file.read_bytes()
    file.write_bytes(whole[: whole.rindex(b",", 0, len(whole) // 2)])
    with pytest.raises(BadCsv, match=r"flights\.csv"):
        apply(connection, seeds)
    assert one(connection, "select count(*) from flights") == 0
    file.write_bytes(whole)
    assert apply(connection, seeds).loaded_rows == 2000, "the table before it had been loaded"
    assert verify(connection, seeds).passed


def test_sequences_go_on_behind_the_loaded_values(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table people (id int generated always as identity primary key, name text)")
    folder(tmp_path, people="id,name\n7,a\n41,b\n")
    apply(connection, tmp_path)
    connection.execute("insert into people (name) values ('c')")
    assert one(connection, "select max(id) from people") == 42


def test_verify_finds_orphans_and_missing_rows(connection: AutocommitConnection, seeds: Path) -> None:
    apply(connection, seeds)
    connection.execute(
        "alter table flights drop constraint flights_carrier_fkey;"
        "update flights set carrier = 'XX' where id in (1, 2); delete from flights where id > 1990;"
        "alter table flights add constraint flies foreign key (carrier) references airlines not valid"
    )
    found = verify(connection, seeds)
    assert not found.passed
    assert found.as_json()["tables"][1] == {
        "table": "public.flights",
        "status": "applied",
        "rows": 1991,
        "archived_rows": 0,
        "recorded_rows": 2000,
        "match": False,
    }
    assert found.as_json()["references"] == [
        {
            "table": "public.flights",
            "constraint": "flies",
            "references": "public.airlines",
            "validated": False,
            "orphans": 2,
        }
    ]


@pytest.mark.parametrize(("archived", "match"), [(8, False), (9, True), (10, False)])
def test_verify_misses_no_row_that_was_archived(
    connection: AutocommitConnection, seeds: Path, archived: int, match: bool
) -> None:
    apply(connection, seeds)
    connection.execute("delete from flights where id > 1990")
    found = verify(connection, seeds, {"public.flights": archived})
    assert [table.match for table in found.tables] == [True, match]


def test_verify_understands_composite_keys_with_nulls(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute(
        "create table parent (a int, b int, primary key (a, b)); insert into parent values (1, 1);"
        "create table simple (a int, b int); create table full_ (a int, b int)"
    )
    rows = "a,b\n1,1\n1,\n,\n2,2\n"
    folder(tmp_path, simple=rows, full_=rows)
    apply(connection, tmp_path)
    connection.execute(
        "alter table simple add foreign key (a, b) references parent not valid;"
        "alter table full_ add foreign key (a, b) references parent match full not valid"
    )
    assert {str(r.table): r.orphans for r in verify(connection, tmp_path).references} == {
        "public.simple": 1,
        "public.full_": 2,
    }


def test_verify_of_a_seed_that_was_never_applied_does_not_pass(connection: AutocommitConnection, seeds: Path) -> None:
    found = verify(connection, seeds)
    assert not found.passed
    assert [table.recorded_rows for table in found.tables] == [None, None]


def test_progress_counts_rows(connection: AutocommitConnection, seeds: Path) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        apply(connection, seeds)
    flights = [p for p in heard if p.task == "seed flights"]
    assert (flights[-1].done, flights[-1].total, flights[-1].unit) == (2000, 2000, "rows")


def test_a_table_that_stays_locked_ends_in_an_error_with_the_next_step(
    database: Target, connection: AutocommitConnection, seeds: Path
) -> None:
    with psycopg.connect(database.url) as other:
        other.execute("lock table airlines in share update exclusive mode")
        with pytest.raises(LockNotAcquired) as caught:
            apply(connection, seeds, lock_ms=20)
    assert caught.value.hint


def test_two_at_once_load_each_table_once(database: Target, connection: AutocommitConnection, seeds: Path) -> None:
    loaded: list[int] = []

    def load() -> None:
        with connect(database, work="test") as mine:
            loaded.append(apply(mine, seeds).loaded_rows)

    threads = [threading.Thread(target=load) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(loaded) == [0, 2002]
    assert one(connection, "select count(*) from flights") == 2000


CHILD = """
import os, sys
from datetime import datetime
from pathlib import Path
from dbplatform.postgres.connection import Target, connect
from dbplatform.progress import listening
from dbplatform.seeding import csv_text
from dbplatform.seeding.apply import apply_seed
from dbplatform.seeding.policy import SeedPolicy
csv_text._BLOCK_BYTES = 1000
def heard(progress):
    if progress.task == "seed flights" and progress.done > 500:
        print("half way", flush=True)
        sys.stdin.read()
with connect(Target("t", os.environ["TEST_URL"]), work="test") as connection, listening(heard):
    apply_seed(connection, Path(sys.argv[1]), SeedPolicy(profile="dev", directory="x"), database="air",
               now=datetime.fromisoformat(sys.argv[2]))
"""


def start_child(database: Target, seeds: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(seeds), NOW.isoformat()],
        env={**os.environ, "TEST_URL": database.url},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def undisturbed(connection: AutocommitConnection, seeds: Path) -> list[str]:
    """The hashes of a run that nobody killed, after which the database is as it was."""
    apply(connection, seeds)
    expected = hashes(connection)
    connection.execute("truncate airlines, flights; drop schema dbplatform cascade")
    return expected


def test_a_seeding_killed_while_it_copies_and_repeated_a_month_later_gives_the_same_rows(
    database: Target, connection: AutocommitConnection, seeds: Path
) -> None:
    expected = undisturbed(connection, seeds)
    with start_child(database, seeds) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "half way\n"
        assert one(connection, "select count(*) from pg_stat_progress_copy where relid = 'flights'::regclass") == 1
        child.send_signal(signal.SIGKILL)
    report = apply(connection, seeds, now=NOW + timedelta(days=31))
    assert [table.loaded for table in report.tables] == [False, True]
    assert hashes(connection) == expected


def test_a_seeding_killed_while_it_waits_for_a_lock_and_repeated_gives_the_same_rows(
    database: Target, connection: AutocommitConnection, seeds: Path
) -> None:
    expected = undisturbed(connection, seeds)
    with psycopg.connect(database.url) as other:
        other.execute("lock table flights in share update exclusive mode")
        with start_child(database, seeds) as child:
            wait_until(connection, "select exists (select from pg_locks where not granted and relation is not null)")
            child.send_signal(signal.SIGKILL)
    apply(connection, seeds, now=NOW + timedelta(days=31))
    assert hashes(connection) == expected


def test_small_blocks_load_the_same_rows(
    connection: AutocommitConnection, seeds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = undisturbed(connection, seeds)
    monkeypatch.setattr(csv_text, "_BLOCK_BYTES", 13)
    apply(connection, seeds)
    assert hashes(connection) == expected


def wait_until(connection: AutocommitConnection, question: str) -> None:
    """Ask until the answer is yes, 30 seconds at most."""
    gave_up = threading.Event()
    timer = threading.Timer(30, gave_up.set)
    timer.start()
    try:
        while one(connection, question) is not True:
            assert not gave_up.is_set(), question
    finally:
        timer.cancel()
