"""A drill proves by restoring; whatever is not the same is named, and nothing is left on the scratch server."""

from __future__ import annotations

import hashlib
import uuid
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import update

from dbplatform.backups.catalogue import Backup, find_backup, load_manifest
from dbplatform.backups.drill import drill, list_drills
from dbplatform.backups.errors import RestoreFailed, ServerLacks, ServerTooOld
from dbplatform.backups.manifest import Manifest, TableContent
from dbplatform.backups.proof import proven_snapshot
from dbplatform.backups.verify import verify_backup
from dbplatform.errors import CannotConnect
from dbplatform.ledger.backups import BackupRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.backups_support import (
    NAME,
    back_up,
    databases,
    fill,
    killed_at,
    programs_with,
    prove,
    server,
)


def believe(backup: Backup, ledger: Ledger, manifest: Manifest) -> Backup:
    """Put another manifest in the place of a backup's, as the ledger knows it too."""
    data = manifest.model_dump_json().encode()
    (backup.folder / "manifest.json").write_bytes(data)
    with ledger.session() as session:
        session.execute(update(BackupRecord).values(sha256=hashlib.sha256(data).hexdigest()))
    return find_backup(ledger, NAME, backup.id)


def changed_source(backup: Backup, ledger: Ledger, **changes: object) -> Backup:
    manifest = load_manifest(backup)
    return believe(backup, ledger, manifest.model_copy(update={"source": manifest.source.model_copy(update=changes)}))


def test_a_drill_proves_every_table_and_measures_rto_and_rpo(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    assert proven_snapshot(ledger, NAME) is None, "complete is not proven"
    manifest = load_manifest(backup)
    now = manifest.source.taken_at + timedelta(minutes=90)

    report = drill(backup, ledger, server(server_url), programs=find_programs(), now=now, run_id="run 1")

    assert report.proven
    assert report.rpo_seconds == 5400
    assert report.rto_seconds is not None
    assert report.rto_seconds > 0
    document = report.as_json()
    assert document.keys() >= {"backup_id", "proven", "rto_seconds", "rpo_seconds", "tables"}
    assert [(t["table"], t["rows"], t["hash"]) for t in document["tables"]] == sorted(
        (content.table, content.rows, content.hash) for content in manifest.tables
    )
    assert all(t["match"] and t["expected_hash"] == t["hash"] for t in document["tables"])
    (record,) = list_drills(ledger, NAME)
    assert (record.status, record.run_id, record.rpo_seconds) == ("proven", "run 1", 5400)
    assert record.tables == document["tables"]
    assert databases(server_url) == []
    proven = proven_snapshot(ledger, NAME)
    assert proven is not None
    assert (proven.backup_id, proven.snapshot) == (backup.id, manifest.source.snapshot)
    assert proven.proven_at == find_backup(ledger, NAME).proven_at


def test_each_table_that_differs_is_named(database: Target, ledger: Ledger, tmp_path: Path, server_url: str) -> None:
    fill(database)
    backup = prove(back_up(database, tmp_path, ledger), ledger, server_url)
    manifest = load_manifest(backup)
    lies = {
        "public.plain": {"rows": 2001},
        "public.events": {"hash": "0" * 32},
        "public.empty_one": {"table": "public.never_was"},
    }
    tables = tuple(t.model_copy(update=lies.get(t.table, {})) for t in manifest.tables)
    backup = believe(backup, ledger, manifest.model_copy(update={"tables": tables}))

    report = drill(backup, ledger, server(server_url), programs=find_programs())

    assert not report.proven
    assert set(report.errors) == {
        "public.plain has 2000 rows, not 2001",
        "public.events has 1001 rows as expected, with other content",
        "public.never_was is missing in the restored database",
        "public.empty_one was not in the backup",
    }
    assert find_backup(ledger, NAME).proven_at is None
    assert databases(server_url) == []


def test_a_lost_large_object_is_named(database: Target, ledger: Ledger, tmp_path: Path, server_url: str) -> None:
    backup = back_up(database, tmp_path, ledger)
    manifest = load_manifest(backup)
    expected = TableContent(table="pg_catalog.pg_largeobject", rows=1, hash="0" * 32)
    backup = believe(backup, ledger, manifest.model_copy(update={"tables": (expected,)}))
    report = drill(backup, ledger, server(server_url), programs=find_programs())
    assert report.errors == ("pg_catalog.pg_largeobject is missing in the restored database",)


def test_what_belongs_to_roles_does_not_stop_a_drill(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    role = f"owner_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(f"create role {role}".encode())
        connection.execute("create table guarded (id int); insert into guarded values (1)")
        connection.execute(f"create policy theirs on guarded to {role} using (true)".encode())
        connection.execute(f"alter table guarded owner to {role}".encode())
        backup = back_up(database, tmp_path, ledger)
        assert role in load_manifest(backup).source.roles
        connection.execute(f"drop owned by {role} cascade; drop role {role}".encode())
    assert prove(backup, ledger, server_url).proven_at is not None


def test_a_scratch_server_with_other_tablespaces_takes_everything_into_its_default_one(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    own, other = f"own_{uuid.uuid4().hex[:8]}", f"other_{uuid.uuid4().hex[:8]}"
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("set allow_in_place_tablespaces = on")
        for name in (own, other):
            connection.execute(f"create tablespace {name} location ''".encode())
        try:
            connection.execute(f"create table there tablespace {own} as select 1 as one".encode())
            backup = back_up(database, tmp_path, ledger)
            connection.execute("drop table there")
            connection.execute(f"drop tablespace {own}".encode())
            assert drill(backup, ledger, server(server_url), programs=find_programs()).proven
        finally:
            connection.execute("drop table if exists there")
            connection.execute(f"drop tablespace if exists {own}".encode())
            connection.execute(f"drop tablespace {other}".encode())


def test_what_keeps_a_drill_from_running_is_an_error_and_leaves_the_proof(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    backup = prove(back_up(database, tmp_path, ledger), ledger, server_url)
    wrong = Target("scratch", make_conninfo(server_url, password="hunter2-not-it"))
    with pytest.raises(CannotConnect) as caught:
        drill(backup, ledger, wrong, programs=find_programs())
    assert "hunter2" not in str(caught.value)

    full = programs_with(
        tmp_path / "bin",
        "pg_restore",
        'case "$*" in *--dbname*) echo "pg_restore: error: could not extend file: '
        'No space left on device" >&2; exit 1;; esac; exec "$REAL/pg_restore" "$@"',
    )
    with pytest.raises(RestoreFailed, match="No space left on device"):
        drill(backup, ledger, server(server_url), programs=full)

    assert [record.status for record in list_drills(ledger, NAME)] == ["errored", "errored", "proven"]
    assert find_backup(ledger, NAME).proven_at == backup.proven_at
    assert databases(server_url) == []


def test_an_older_server_is_refused_beforehand(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    backup = changed_source(back_up(database, tmp_path, ledger), ledger, server_major=99, server_version="99.1")
    with pytest.raises(ServerTooOld, match=r"comes from PostgreSQL 99\.1"):
        drill(backup, ledger, server(server_url), programs=find_programs())


def test_a_missing_extension_is_refused_beforehand(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    backup = changed_source(back_up(database, tmp_path, ledger), ledger, extensions=("postgis", "btree_gist"))
    with pytest.raises(ServerLacks, match="needs the extension postgis"):
        drill(backup, ledger, server(server_url), programs=find_programs())


def test_a_restore_that_fails_is_no_proof(database: Target, ledger: Ledger, tmp_path: Path, server_url: str) -> None:
    """The files are right, the dump is not: a check that holds in its own database alone."""
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute("create table amounts (n int)")
        connection.execute(
            sql.SQL("alter table amounts add check (current_database() = {})").format(sql.Literal(database.name))
        )
        connection.execute("insert into amounts values (3)")
    backup = back_up(database, tmp_path, ledger)
    assert verify_backup(backup, ledger, programs=find_programs()).passed
    report = drill(backup, ledger, server(server_url), programs=find_programs())
    assert not report.proven
    assert "amounts" in report.errors[0]
    assert "worker process" not in report.errors[0], "that is no cause"
    assert databases(server_url) == []


def test_a_program_that_ends_without_a_word_has_a_reason_and_a_killed_one_disproves_nothing(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    backup = back_up(database, tmp_path, ledger)
    proven = prove(backup, ledger, server_url)
    killed = programs_with(tmp_path / "killed", "pg_restore", "kill -9 $$")
    with pytest.raises(RestoreFailed, match="pg_restore was ended by signal 9"):
        drill(backup, ledger, server(server_url), programs=killed)
    assert find_backup(ledger, NAME, backup.id).proven_at == proven.proven_at
    warned = programs_with(tmp_path / "warned", "pg_restore", "echo 'pg_restore: some words' >&2; kill -9 $$")
    with pytest.raises(RestoreFailed, match="pg_restore was ended by signal 9"):
        drill(backup, ledger, server(server_url), programs=warned)
    worker = programs_with(
        tmp_path / "worker",
        "pg_restore",
        'case "$*" in *--list*) exec "$REAL/pg_restore" "$@";; esac; '
        'echo "pg_restore: error: a worker process died unexpectedly" >&2; exit 1',
    )
    with pytest.raises(RestoreFailed, match="a worker process died"):
        drill(backup, ledger, server(server_url), programs=worker)
    assert find_backup(ledger, NAME, backup.id).proven_at == proven.proven_at
    silent = programs_with(tmp_path / "silent", "pg_restore", "exit 1")
    [error] = drill(backup, ledger, server(server_url), programs=silent).errors
    assert "pg_restore ended with code 1" in error


@pytest.mark.parametrize(
    "fact",
    cases("started", "read", "created", "loaded", "compared", "dropped", "recorded", sample=("loaded", "recorded")),
)
def test_killed_here_nothing_is_proven_by_half_and_the_next_drill_clears_it(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str, fact: str
) -> None:
    fill(database)
    backup = back_up(database, tmp_path, ledger)
    killed_at(
        "drill", f"drill {NAME}: {fact}", database=database, ledger=ledger, folder=tmp_path, server_url=server_url
    )
    assert (find_backup(ledger, NAME).proven_at is not None) == (fact == "recorded")

    assert prove(backup, ledger, server_url).proven_at is not None

    statuses = [record.status for record in list_drills(ledger, NAME)]
    assert statuses == ["proven", "proven" if fact == "recorded" else "errored"]
    assert databases(server_url) == []
