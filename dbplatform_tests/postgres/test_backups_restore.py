"""A restored database is the one that was dumped, under its name only when all of it is there."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform import progress
from dbplatform.backups import files as files_module
from dbplatform.backups.catalogue import find_backup, list_backups, load_manifest
from dbplatform.backups.errors import (
    BackupFailed,
    DatabaseExists,
    NoRoom,
    NotRestorable,
    ReplaceMismatch,
    RestoreFailed,
    ServerLacks,
)
from dbplatform.backups.restore import restore_backup
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import (
    NAME,
    back_up,
    databases,
    fill,
    hashes,
    killed_at,
    named_database,
    new_name,
    programs_with,
    server,
)


@pytest.fixture
def restored(server_url: str) -> Iterator[Target]:
    """A name to restore to; dropped at the end."""
    with named_database(server_url, new_name()) as target:
        yield target


def ask(target: Target, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(target.url) as connection:
        return connection.execute(query.encode()).fetchall()


def test_a_restored_database_is_the_one_that_was_dumped(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, restored: Target
) -> None:
    fill(database)
    with psycopg.connect(database.url, autocommit=True) as connection:
        name = sql.Identifier(database.name)
        connection.execute(sql.SQL('alter database {} set search_path to public, "other place"').format(name))
        connection.execute(sql.SQL("alter database {} set work_mem to '7MB'").format(name))
    backup = back_up(database, tmp_path, ledger)

    report = restore_backup(backup, server(server_url), restored.name, ledger, programs=find_programs())

    assert hashes(restored) == hashes(database)
    assert all(table.match for table in report.tables)
    assert (report.name, report.replaced) == (restored.name, False)
    for query in (
        "show search_path",
        "show work_mem",
        "select nextval('numbers')",
        "insert into plain (word) values ('next') returning id, doubled",
        "select * from counted",
        "select count(*) from words",
        "select pg_get_partkeydef('events'::regclass)",
        "select encode(sha256(lo_get(oid)), 'hex') from pg_largeobject_metadata order by 1",
        "select pg_encoding_to_char(encoding), datcollate, datctype, pg_get_userbyid(datdba) from pg_database"
        " where datname = current_database()",
    ):
        assert ask(restored, query) == ask(database, query), query
    analyzed = "select count(*) > 0 from pg_stats where schemaname = 'public' and tablename = 'plain'"
    assert ask(restored, analyzed) == [(True,)]
    assert databases(server_url) == []


def test_a_restore_goes_into_a_name_with_quotes(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    with named_database(server_url, f'it\'s "odd" = {uuid.uuid4().hex[:6]}') as target:
        restore_backup(backup, server(server_url), target.name, ledger, programs=find_programs())
        assert hashes(target) == hashes(database)


def test_a_restored_database_has_no_subscription(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, restored: Target
) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create subscription news connection 'dbname=nowhere' publication p with (connect = false)")
        backup = back_up(database, tmp_path, ledger)
        connection.execute("alter subscription news set (slot_name = none)")
        connection.execute("drop subscription news")
    restore_backup(backup, server(server_url), restored.name, ledger, programs=find_programs())
    query = "select count(*) from pg_subscription s join pg_database d on d.oid = subdbid where datname = %s"
    with psycopg.connect(restored.url) as connection:
        assert connection.execute(query, (restored.name,)).fetchone() == (0,)


def test_a_database_that_exists_is_refused_and_stays(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    before = hashes(database)
    with pytest.raises(DatabaseExists, match=f"The database {database.name} exists") as caught:
        restore_backup(backup, server(server_url), database.name, ledger, programs=find_programs())
    assert f"--replace {database.name}" in (caught.value.hint or "")
    with pytest.raises(ReplaceMismatch):
        restore_backup(
            backup, server(server_url), database.name, ledger, programs=find_programs(), replace="something_else"
        )
    with pytest.raises(DatabaseExists, match="connect to another database"):
        restore_backup(
            backup,
            Target("x", database.url),
            database.name,
            ledger,
            programs=find_programs(),
            replace=database.name,
        )
    assert hashes(database) == before
    assert databases(server_url) == []


def test_a_repeated_name_replaces_the_database_and_its_sessions(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)
    before = hashes(database)
    backup = back_up(database, tmp_path, ledger)
    with psycopg.connect(database.url, autocommit=True) as bystander:
        bystander.execute("delete from plain")
        bystander.execute("create table newer (id int)")
        report = restore_backup(
            backup, server(server_url), database.name, ledger, programs=find_programs(), replace=database.name
        )
        with pytest.raises(psycopg.OperationalError):
            bystander.execute("select 1")
    assert report.replaced
    assert hashes(database) == before
    assert databases(server_url) == []


def test_a_failed_restore_leaves_the_database_that_it_was_to_replace(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)
    before = hashes(database)
    backup = back_up(database, tmp_path, ledger)
    failing = programs_with(tmp_path / "bin", "pg_restore", '"$REAL/pg_restore" "$@"; exit 1')
    with pytest.raises(RestoreFailed, match="pg_restore ended with code 1"):
        restore_backup(backup, server(server_url), database.name, ledger, programs=failing, replace=database.name)
    assert hashes(database) == before
    assert databases(server_url) == []


def test_a_restore_that_brought_back_less_is_no_restore(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, restored: Target
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    lying = programs_with(tmp_path / "bin", "pg_restore", 'exec "$REAL/pg_restore" --exclude-schema="other place" "$@"')
    with pytest.raises(RestoreFailed, match=r'"other place"\.child is missing in the restored database'):
        restore_backup(backup, server(server_url), restored.name, ledger, programs=lying)
    assert databases(server_url, f"^{restored.name}$") == []


def test_a_missing_role_is_said_beforehand_and_can_be_done_without(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, restored: Target
) -> None:
    role = f"owner_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(f"create role {role}; create table theirs (id int)".encode())
        connection.execute("insert into theirs values (1)")
        connection.execute(f"alter table theirs owner to {role}".encode())
        backup = back_up(database, tmp_path, ledger)
        connection.execute(f"drop owned by {role}; drop role {role}".encode())
    with pytest.raises(ServerLacks, match=f"needs the role {role}"):
        restore_backup(backup, server(server_url), restored.name, ledger, programs=find_programs())
    restore_backup(backup, server(server_url), restored.name, ledger, programs=find_programs(), owners=False)
    assert ask(restored, "select count(*) from theirs") == [(1,)]


def test_too_little_room_is_said_beforehand(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup = back_up(database, tmp_path, ledger)
    monkeypatch.setattr(files_module.shutil, "disk_usage", lambda _: type("usage", (), {"free": 1000}))
    heard: list[str] = []
    name = new_name()
    with progress.listening(lambda fact: heard.append(fact.task)), pytest.raises(NoRoom):
        restore_backup(backup, server(server_url), name, ledger, programs=find_programs(), room=tmp_path)
    assert f"restore {name}: created" not in heard


def test_a_failed_backup_cannot_be_restored(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    with pytest.raises(BackupFailed, match="ended with code 1"):
        back_up(database, tmp_path, ledger, programs=programs_with(tmp_path / "bin", "pg_dump", "exit 1"))
    (failed,) = list_backups(ledger, NAME)
    with pytest.raises(NotRestorable, match=f"{failed.id} is failed, not complete"):
        find_backup(ledger, NAME, failed.id)


def test_a_connection_that_a_url_limits_is_used_as_it_says(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, restored: Target
) -> None:
    """Settings of the URL, as a person's user or database may have them, do not change what is read and written."""
    fill(database)
    limited = Target(NAME, make_conninfo(database.url, options="-c search_path=nowhere -c lc_monetary=C"))
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("alter database {} set idle_in_transaction_session_timeout to 1").format(
                sql.Identifier(database.name)
            )
        )
    backup = back_up(limited, tmp_path, ledger)
    restore_backup(backup, server(server_url), restored.name, ledger, programs=find_programs())
    assert hashes(restored) == hashes(database)
    assert load_manifest(backup).source.settings == {"idle_in_transaction_session_timeout": "1"}


@pytest.mark.parametrize(
    "fact", cases("started", "created", "loaded", "compared", "ready", "renamed", "done", sample=("loaded", "renamed"))
)
def test_killed_here_only_a_database_of_ours_is_left_and_the_next_restore_drops_it(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, fact: str, restored: Target
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    killed_at(
        "restore",
        f"restore {restored.name}: {fact}",
        database=database,
        ledger=ledger,
        folder=tmp_path,
        server_url=server_url,
        name=restored.name,
    )
    there = databases(server_url, f"^{restored.name}$")
    assert there == ([restored.name] if fact in ("renamed", "done") else [])
    if there:
        assert hashes(restored) == hashes(database)

    with named_database(server_url, new_name()) as again:
        restore_backup(backup, server(server_url), again.name, ledger, programs=find_programs())
        assert hashes(again) == hashes(database)
    assert databases(server_url) == []


@pytest.mark.parametrize("fact", ["ready", "renamed"])
def test_killed_while_replacing_the_old_or_the_new_database_is_whole(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, fact: str
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    dumped = hashes(database)
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("delete from plain where id > 10")
    changed = hashes(database)
    killed_at(
        "replace",
        f"restore {database.name}: {fact}",
        database=database,
        ledger=ledger,
        folder=tmp_path,
        server_url=server_url,
        name=database.name,
    )
    assert hashes(database) == (dumped if fact == "renamed" else changed)
    restore_backup(backup, server(server_url), database.name, ledger, programs=find_programs(), replace=database.name)
    assert hashes(database) == dumped
    assert databases(server_url) == []
