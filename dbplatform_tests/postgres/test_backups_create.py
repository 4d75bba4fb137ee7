"""A backup is complete or it is nothing; what the manifest says is what the dump holds."""

from __future__ import annotations

import hashlib
import json
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform import progress
from dbplatform.backups import files as files_module
from dbplatform.backups import programs as programs_module
from dbplatform.backups.catalogue import Backup, find_backup, list_backups, load_manifest
from dbplatform.backups.create import create_backup
from dbplatform.backups.drill import drill
from dbplatform.backups.errors import BackupFailed, NoFittingProgram, NoRoom, UnknownBackup
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.prune import apply_prune, plan_prune
from dbplatform.backups.verify import verify_backup
from dbplatform.errors import CannotConnect, WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import Programs, find_programs
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import (
    KEEP_ONE,
    NAME,
    back_up,
    fill,
    hashes,
    hidden,
    in_folder,
    killed_at,
    named_database,
    programs_with,
    prove,
    server,
    statuses,
    visible,
)


def test_a_backup_holds_every_table_as_the_manifest_says(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    manifest = load_manifest(backup)

    counted = {content.table: content.rows for content in manifest.tables}
    assert counted == {
        "public.plain": 2000,
        "public.plain_key": 0,
        'public."Odd ""name"" too"': 3,
        '"other place".child': 0,
        "public.events": 1001,
        "public.no_columns": 1,
        "public.empty_one": 0,
        "pg_catalog.pg_largeobject": 2,
    }
    found = hashes(database)
    assert {c.hash for c in manifest.tables if c.table != "pg_catalog.pg_largeobject"} <= set(found.values())
    assert visible(tmp_path) == {backup.id}
    assert hidden(tmp_path) == set()
    assert backup.status == "complete"
    stored = [file for file in backup.folder.rglob("*") if file.is_file() and file.name != "manifest.json"]
    assert backup.bytes == sum(file.stat().st_size for file in stored)
    assert backup.sha256 == hashlib.sha256((backup.folder / "manifest.json").read_bytes()).hexdigest()
    assert backup.proven_at is None


def test_the_manifest_tells_which_moment_of_which_database(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    manifest = load_manifest(back_up(database, tmp_path, ledger))
    with psycopg.connect(database.url) as connection:
        row = connection.execute(
            "select system_identifier::text, (select oid from pg_database where datname = current_database()),"
            " pg_current_wal_lsn() >= %s::pg_lsn, now() > %s,"
            " pg_snapshot_xmax(%s::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()),"
            " (select timeline_id from pg_control_checkpoint()) from pg_control_system()",
            (manifest.source.wal_lsn, manifest.source.taken_at, manifest.source.snapshot),
        ).fetchone()
    source = manifest.source
    assert row == (source.system_identifier, source.database_oid, True, True, True, source.timeline_id)


def test_counts_and_dump_see_one_moment_while_writers_go_on(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)

    def write(fact: progress.Progress) -> None:
        if fact.task == f"backup {NAME}: exported":
            with psycopg.connect(database.url, autocommit=True) as connection:
                connection.execute("insert into plain (word) values ('too late')")
                connection.execute("delete from events")

    with progress.listening(write):
        backup = back_up(database, tmp_path, ledger)
    report = drill(backup, ledger, server(server_url), programs=find_programs())
    assert report.proven
    rows = {table.table: table.rows for table in report.tables}
    assert (rows["public.plain"], rows["public.events"]) == (2000, 1001)


def test_an_empty_database_is_backed_up_and_proven(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    backup = back_up(database, tmp_path, ledger)
    assert load_manifest(backup).tables == ()
    assert prove(backup, ledger, server_url).proven_at is not None


def test_a_database_with_an_odd_name_is_backed_up(ledger: Ledger, tmp_path: Path, server_url: str) -> None:
    name = f'it\'s = "odd" \\ {uuid.uuid4().hex[:8]}'
    with named_database(server_url, name, create=True) as database:
        fill(database)
        backup = back_up(database, tmp_path, ledger)
        assert load_manifest(backup).source.database == name
        assert prove(backup, ledger, server_url).proven_at is not None


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ('"$REAL/pg_dump" "$@"; echo "pg_dump: error: out of tape" >&2; exit 1', "out of tape"),
        ('"$REAL/pg_dump" "$@"; echo "pg_dump: error: a disk lied" >&2; exit 0', "a disk lied"),
        ('"$REAL/pg_dump" "$@"; kill -9 $$', "pg_dump was ended by signal 9"),
        ("exit 3", "pg_dump ended with code 3"),
    ],
    ids=["code and words", "words alone", "killed", "code alone"],
)
def test_a_failed_dump_leaves_nothing_and_prunes_nothing(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, script: str, words: str
) -> None:
    older = prove(back_up(database, tmp_path, ledger), ledger, server_url)
    newer = prove(back_up(database, tmp_path, ledger), ledger, server_url)

    with pytest.raises(BackupFailed, match=words) as caught:
        back_up(database, tmp_path, ledger, programs=programs_with(tmp_path / "bin", "pg_dump", script))

    assert caught.value.hint is not None
    assert statuses(ledger) == ["complete", "complete", "failed"]
    assert words in (list_backups(ledger, NAME)[0].error or "")
    assert visible(tmp_path) == {older.id, newer.id}
    assert hidden(tmp_path) == set()
    plan = plan_prune(ledger, NAME, KEEP_ONE, now=newer.started_at)
    assert plan.prune == ()
    assert plan.refusal is not None
    assert "failed" in plan.refusal
    assert apply_prune(ledger, plan, KEEP_ONE, now=newer.started_at).pruned == ()
    assert visible(tmp_path) == {older.id, newer.id}


def test_a_table_that_may_not_be_read_fails_the_backup(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create table secret (id int)")
        connection.execute(f"create role {role} login password 'known'".encode())
        try:
            limited = Target("limited", make_conninfo(database.url, user=role, password="known"))
            with pytest.raises(WorkError, match="permission denied for table secret"):
                back_up(limited, tmp_path, ledger)
        finally:
            connection.execute(f"drop role {role}".encode())
    assert statuses(ledger) == ["failed"]
    assert hidden(tmp_path) | visible(tmp_path) == set()


def test_rows_that_row_security_hides_fail_the_backup(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    role = f"reader_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create table guarded (id int); insert into guarded values (1), (2)")
        connection.execute("alter table guarded enable row level security")
        connection.execute("create policy first_only on guarded using (id = 1)")
        connection.execute(f"create role {role} login password 'known'; grant select on guarded to {role}".encode())
        try:
            limited = Target("limited", make_conninfo(database.url, user=role, password="known"))
            with pytest.raises(WorkError, match="row-level security"):
                back_up(limited, tmp_path, ledger)
        finally:
            connection.execute(f"drop owned by {role}; drop role {role}".encode())
    assert statuses(ledger) == ["failed"]


def test_a_wrong_password_is_one_sentence_and_never_printed(
    database: Target, ledger: Ledger, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = Target(NAME, make_conninfo(database.url, password="hunter2-not-it"))
    with pytest.raises(CannotConnect) as caught:
        back_up(wrong, tmp_path, ledger)
    said = capfd.readouterr()
    recorded = json.dumps(list_backups(ledger, NAME)[0].as_json())
    assert "password authentication failed" in str(caught.value)
    assert "hunter2" not in str(caught.value) + repr(caught.value) + recorded + said.out + said.err
    assert statuses(ledger) == ["failed"]


def test_no_secret_is_on_a_command_line(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    password = psycopg.conninfo.conninfo_to_dict(database.url)["password"]
    script = f'echo "$0 $@" >> {tmp_path}/said; exec "$REAL/pg_dump" "$@"'
    back_up(database, tmp_path, ledger, programs=programs_with(tmp_path / "bin", "pg_dump", script))
    said = (tmp_path / "said").read_text()
    assert "--snapshot=" in said
    assert str(password) not in said


def test_an_older_pg_dump_alone_is_one_sentence(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "old"
    folder.mkdir()
    (folder / "pg_dump").write_text("#!/bin/sh\n")
    (folder / "pg_dump").chmod(0o755)
    monkeypatch.setattr(programs_module, "_DEBIAN", tmp_path / "none")
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    with pytest.raises(NoFittingProgram, match=r"No pg_dump of PostgreSQL \d+ or newer was found; there is 9\.6 in"):
        back_up(database, tmp_path, ledger, programs=Programs(bin_dir=folder, version="9.6", major=9))
    assert statuses(ledger) == ["failed"]


def test_too_little_room_is_said_before_anything_is_written(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database)
    monkeypatch.setattr(files_module.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000}))
    with pytest.raises(NoRoom, match="has 1000 bytes free; a backup of shop may need"):
        back_up(database, tmp_path, ledger)
    assert hidden(tmp_path) | visible(tmp_path) == set()


def test_a_destination_that_cannot_be_made_fails_the_backup(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackupFailed, match="Not a directory"):
        back_up(database, tmp_path / "file", ledger)
    assert statuses(ledger) == ["failed"]


def test_two_backups_at_once_are_both_complete(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)
    inner: list[Backup] = []
    begun: list[str] = []

    def once(fact: progress.Progress) -> None:
        if fact.task == f"backup {NAME}: dumping" and not begun:
            begun.append(fact.task)
            inner.append(back_up(database, tmp_path, ledger))

    with progress.listening(once):
        outer = back_up(database, tmp_path, ledger)
    assert visible(tmp_path) == {outer.id, inner[0].id}
    assert statuses(ledger) == ["complete", "complete"]
    for backup in (outer, *inner):
        assert verify_backup(backup, ledger, programs=find_programs()).passed


def test_progress_is_told_in_bytes(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database)
    heard: list[progress.Progress] = []
    with progress.listening(heard.append):
        backup = back_up(database, tmp_path, ledger)
    written = [fact.done for fact in heard if fact.task == f"backup {NAME}"]
    assert written == sorted(written)
    assert written[-1] == sum(path.stat().st_size for path in backup.dump.iterdir())
    assert f"count {NAME}" in {fact.task for fact in heard}


def test_compression_is_what_was_declared(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database)
    for wanted, suffix in (("zstd:3", ".zst"), ("gzip:1", ".gz"), ("none", ".dat")):
        policy = BackupPolicy.model_validate({"logical": {"compression": wanted, "jobs": 1}})
        backup = create_backup(database, in_folder(tmp_path), policy, ledger, database=NAME, programs=find_programs())
        manifest = load_manifest(backup)
        assert manifest.compression == wanted
        assert {Path(file.name).suffix for file in manifest.files} == {
            ".toc",
            ".dat",
            ".sql",
            suffix,
        }, "only toc.dat is bare"


def test_a_program_without_zstd_uses_gzip(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    script = """
    for word in "$@"; do case "$word" in --compress=zstd*)
        echo "pg_dump: error: this build does not support compression with ZSTD" >&2; exit 1;; esac; done
    exec "$REAL/pg_dump" "$@"
    """
    backup = back_up(database, tmp_path, ledger, programs=programs_with(tmp_path / "bin", "pg_dump", script))
    assert load_manifest(backup).compression == "gzip:1"


def test_nothing_to_find_is_said(ledger: Ledger) -> None:
    with pytest.raises(UnknownBackup, match="has no backup that is complete"):
        find_backup(ledger, NAME)
    with pytest.raises(UnknownBackup, match="has no backup x"):
        find_backup(ledger, NAME, "x")


@pytest.mark.parametrize(
    ("fact", "survives"),
    cases(
        ("started", False),
        ("exported", False),
        ("dumping", False),
        ("dumped", False),
        ("counted", False),
        ("summed", False),
        ("described", True),
        ("published", True),
        ("recorded", True),
        sample=("dumped", "published"),
    ),
)
def test_killed_here_nothing_half_made_is_listed_and_the_next_backup_clears_it(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, fact: str, survives: bool
) -> None:
    fill(database)
    killed_at(
        "create",
        f"backup {NAME}: {fact}",
        database=database,
        ledger=ledger,
        folder=tmp_path,
        server_url=server_url,
    )
    assert statuses(ledger) == ["complete" if fact == "recorded" else "running"]
    if (tmp_path / NAME).exists():
        assert len(visible(tmp_path)) == int(fact in ("published", "recorded"))

    after = back_up(database, tmp_path, ledger)

    assert statuses(ledger) == ["complete" if survives else "failed", "complete"]
    assert len(visible(tmp_path)) == 1 + int(survives)
    assert hidden(tmp_path) == set()
    assert prove(after, ledger, server_url).proven_at is not None
    for backup in list_backups(ledger, NAME):
        if backup.status == "complete":
            assert verify_backup(backup, ledger, programs=find_programs()).passed
    with psycopg.connect(server_url) as connection:
        left = connection.execute(
            "select count(*) from pg_stat_activity where datname = %s", (database.name,)
        ).fetchone()
    assert left == (0,), "no session of the killed pg_dump goes on"
