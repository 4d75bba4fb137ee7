"""What a trial sees of each statement: locks, rewrites, scans, log; told by the server, not by a table of ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dbplatform.migrations.engine import MigrationPolicy, apply_migrations
from dbplatform.migrations.observe import Effect
from dbplatform.migrations.trials.try_out import TrialRun, try_out
from dbplatform.postgres.connection import AutocommitConnection, Target, connect

POLICY = MigrationPolicy(allow_destructive=True)


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute("create table t (id int primary key, name varchar(10), n int)")
        connection.execute("insert into t select g, 'n' || g, g from generate_series(1, 1000) g")
        connection.execute("create table child (id int, t_id int)")
        connection.execute("create index by_n on t (n)")
        yield connection


def tried(connection: AutocommitConnection, folder: Path, text: str, *, server_wide: bool = True) -> TrialRun:
    (folder / "V1__it.sql").write_text(text, encoding="utf-8")
    return try_out(connection, folder, POLICY, database="shop", server_wide=server_wide)


def effects(connection: AutocommitConnection, folder: Path, text: str) -> list[Effect]:
    run = tried(connection, folder, text)
    assert run.failed is None, run.failed
    seen = [statement.effect for statement in run.migrations[0].statements]
    assert None not in seen
    return [effect for effect in seen if effect is not None]


@pytest.mark.parametrize(
    ("sql", "lock", "rewritten"),
    [
        ("alter table t add column a int", "ACCESS EXCLUSIVE", ()),
        ("alter table t add column a int default 3", "ACCESS EXCLUSIVE", ()),
        ("alter table t add column a timestamptz default clock_timestamp()", "ACCESS EXCLUSIVE", ("public.t",)),
        ("alter table t alter column n type bigint", "ACCESS EXCLUSIVE", ("public.t",)),
        ("alter table t alter column name type text", "ACCESS EXCLUSIVE", ()),
        ("alter table t set unlogged", "ACCESS EXCLUSIVE", ("public.t",)),
        ("create index i on t (name)", "SHARE", ()),
        ("alter table t validate constraint c", "SHARE UPDATE EXCLUSIVE", ()),
        ("comment on table t is 'x'", "SHARE UPDATE EXCLUSIVE", ()),
        ("update t set n = n + 1", "ROW EXCLUSIVE", ()),
        ("create view v as select * from t", "ACCESS SHARE", ()),
        ("create trigger g before insert on t for each row execute function f()", "SHARE ROW EXCLUSIVE", ()),
        ("truncate t", "ACCESS EXCLUSIVE", ()),
        ("cluster t using by_n", "ACCESS EXCLUSIVE", ("public.t",)),
        ("drop table t", "ACCESS EXCLUSIVE", ()),
        ("alter table t rename to u", "ACCESS EXCLUSIVE", ()),
        ("do $$begin execute 'alter table t add b int'; end$$", "ACCESS EXCLUSIVE", ()),
        ("create index concurrently i on t (name)", "SHARE UPDATE EXCLUSIVE", ()),
        ("create unique index concurrently if not exists i on public.t (name)", "SHARE UPDATE EXCLUSIVE", ()),
        ("drop index concurrently by_n", "SHARE UPDATE EXCLUSIVE", ()),
        ("reindex table concurrently t", "SHARE UPDATE EXCLUSIVE", ()),
        ("vacuum t", "SHARE UPDATE EXCLUSIVE", ()),
        ("vacuum full t", "ACCESS EXCLUSIVE", ("public.t",)),
    ],
)
def test_the_lock_and_the_rewrite_of_a_statement_are_seen(
    connection: AutocommitConnection, tmp_path: Path, sql: str, lock: str, rewritten: tuple[str, ...]
) -> None:
    connection.execute("alter table t add constraint c check (n > 0) not valid")
    connection.execute("create function f() returns trigger language plpgsql as 'begin return new; end'")
    [effect] = effects(connection, tmp_path, sql)
    assert (effect.strongest, effect.rewritten) == (lock, rewritten)
    assert "public.t" in {found.relation for found in effect.locks if found.mode == lock}


def test_a_new_table_is_in_nobodys_way_but_the_one_it_refers_to_is(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    first, second = effects(
        connection, tmp_path, "create table own (id int);\nalter table child add foreign key (t_id) references t;"
    )
    assert first.locks == ()
    assert {(found.relation, found.mode) for found in second.locks} >= {
        ("public.child", "SHARE ROW EXCLUSIVE"),
        ("public.t", "SHARE ROW EXCLUSIVE"),
    }


def test_a_lock_that_was_there_already_is_told_as_held(connection: AutocommitConnection, tmp_path: Path) -> None:
    first, second, third = effects(
        connection, tmp_path, "alter table t add a int;\nalter table t add b int;\ncreate index i on t (b);"
    )
    assert (first.strongest, {found.held for found in first.locks}) == ("ACCESS EXCLUSIVE", {False})
    assert (second.strongest, {found.held for found in second.locks}) == ("ACCESS EXCLUSIVE", {True})
    assert {(found.mode, found.held) for found in third.locks} == {("ACCESS EXCLUSIVE", True), ("SHARE", False)}


def test_a_statement_that_reads_a_whole_table_is_told_in_each_file_anew(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    (tmp_path / "V2__again.sql").write_text("alter table t add b int", encoding="utf-8")
    (tmp_path / "V3__again.sql").write_text("alter table t alter name set not null", encoding="utf-8")
    run = tried(connection, tmp_path, "alter table t add constraint c check (n >= 0)")
    scanned = [statement.effect and statement.effect.scanned for m in run.migrations for statement in m.statements]
    assert scanned == [("public.t",), (), ("public.t",)]


def test_the_log_that_a_rewrite_writes_is_measured(connection: AutocommitConnection, tmp_path: Path) -> None:
    cheap, dear = effects(connection, tmp_path, "alter table t add a int;\nalter table t alter n type bigint;")
    assert cheap.wal_bytes is not None
    assert dear.wal_bytes is not None
    # A thousand rows of some 40 bytes are written anew.
    assert dear.wal_bytes > 40_000 > cheap.wal_bytes > 0


def test_beside_a_real_database_a_trial_changes_nothing_of_the_server(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    for number, sql in enumerate(
        (
            "create role dbplatform_trial_role",
            "alter system set work_mem = '5MB'",
            "do 'begin create role x_y; end'",
            "do 'begin create role x_y; commit; end'",
            "comment on database template1 is 'ours'",
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        run = tried(connection, folder, sql, server_wide=False)
        assert run.failed is not None
        assert "scratch_url_env" in (run.failed.hint or "")
        assert run.not_run == ("V1__it.sql",)
    roles = connection.execute("select rolname from pg_roles where rolname in ('dbplatform_trial_role', 'x_y')")
    assert roles.fetchall() == []


def test_what_a_trial_saw_before_a_failure_is_kept(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V2__wrong.sql").write_text("select 1 / 0", encoding="utf-8")
    run = tried(connection, tmp_path, "alter table t add a int")
    assert [m.script for m in run.migrations] == ["V1__it.sql"]
    assert run.failed is not None
    assert "division by zero" in str(run.failed)
    assert run.not_run == ("V2__wrong.sql",)


def test_apply_tells_the_locks_that_it_took(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__first.sql").write_text("create table first (id int)", encoding="utf-8")
    first = apply_migrations(connection, tmp_path, POLICY).as_json()
    assert first["migrations"][0]["statements"][0]["locks"] is None
    (tmp_path / "V2__a.sql").write_text("alter table t add a int;\ncreate index on child (id);", encoding="utf-8")
    document = apply_migrations(connection, tmp_path, POLICY).as_json()
    statements = document["migrations"][0]["statements"]
    assert [(s["lock"], s["rewrites"]) for s in statements] == [("ACCESS EXCLUSIVE", False), ("SHARE", False)]


def test_a_role_that_may_not_see_locks_migrates_all_the_same(connection: AutocommitConnection, tmp_path: Path) -> None:
    (tmp_path / "V1__first.sql").write_text("create table first (id int)", encoding="utf-8")
    apply_migrations(connection, tmp_path, POLICY)
    connection.execute("create role dbplatform_blind; grant create on schema public to dbplatform_blind")
    connection.execute("revoke select on pg_locks from public")
    (tmp_path / "V2__a.sql").write_text("set role dbplatform_blind;\ncreate table a (id int);", encoding="utf-8")
    try:
        document = apply_migrations(connection, tmp_path, POLICY).as_json()
        assert [s["locks"] for s in document["migrations"][0]["statements"]] == [None, None]
        assert document["migrations"][0]["status"] == "applied"
    finally:
        connection.execute("drop owned by dbplatform_blind; drop role dbplatform_blind")


def test_a_file_may_set_its_isolation_level(connection: AutocommitConnection, tmp_path: Path) -> None:
    run = tried(
        connection,
        tmp_path,
        "set transaction isolation level serializable;\n"
        "create table level as select current_setting('transaction_isolation') as is_now;",
    )
    assert run.failed is None, run.failed
    assert connection.execute("select is_now from level").fetchone() == ("serializable",)


def test_passwords_are_not_shown(connection: AutocommitConnection, tmp_path: Path) -> None:
    with_secrets = (
        "create role x_z password 'hunter2'",
        "alter role x_z password $$hunter2$$",
        "alter role x_z PASSWORD E'hunter2'",
    )
    run = tried(connection, tmp_path, ";\n".join((*with_secrets, "drop role x_z")))
    assert run.failed is None, run.failed
    shown = [statement["sql"] for statement in run.migrations[0].as_json()["statements"]]
    assert "hunter2" not in "".join(shown)
    assert all(text.lower().endswith("password '***'") for text in shown[:3])
    (tmp_path / "V2__again.sql").write_text(with_secrets[0], encoding="utf-8")
    refused = try_out(connection, tmp_path, POLICY, database="shop", server_wide=False)
    assert refused.failed is not None
    assert "hunter2" not in str(refused.failed)
