"""ScribeMed: slow statements are seen, pools fit their environment, organizations are kept apart, backups come back."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.declaration.project import Project
from dbplatform.operations.platform import Platform
from dbplatform.operations.reading import read
from dbplatform.postgres.connection import Target
from dbplatform.postgres.pools import PROFILES, DatabasePool, Environment, pool_settings
from dbplatform_tests.docs.test_runbooks import RUNBOOKS
from dbplatform_tests.docs.test_tutorial import typed
from dbplatform_tests.postgres.test_five_systems import filled
from dbplatform_tests.systems.conftest import System
from dbplatform_tests.typed import Type

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

Session = psycopg.Connection[Any]
#: A question for each performance index.
INDEXES = {
    "idx_users_email": "select id from users where email = 'x' and deleted_at is null",
    "idx_sessions_user_active": "select id from sessions where user_id = ANYBODY and revoked_at is null",
    "idx_audit_logs_user_date": "select id from audit_logs where user_id = ANYBODY order by created_at desc limit 9",
    "idx_patients_active": """
        select id from patients where organization_id = ANYBODY and status = 'active' order by last_name
    """,
}
ORGANIZATION = "select set_config('scribemed.organization_id', %s, true)"


def one(session: Session, question: str, *values: Any) -> Any:
    row = session.execute(question.encode(), values or None).fetchone()
    assert row is not None
    return row[0]


def in_new_session(target: Target, question: str) -> Any:
    with psycopg.connect(target.url) as session:
        return one(session, question)


def test_slow_and_writing_statements_are_logged_until_that_is_undone(command: Type, system: System) -> None:
    slower_than, kind = "show log_min_duration_statement", "show log_statement"
    before = [in_new_session(system.target, setting) for setting in (slower_than, kind)]
    assert command("slow-queries", "scribemed", "--log", "on").code == 0
    assert [in_new_session(system.target, setting) for setting in (slower_than, kind)] == ["1s", "mod"]
    prefix = in_new_session(system.target, "show log_line_prefix")
    assert [part for part in ("%p", "%u", "%d", "%a", "%h") if part not in prefix] == []
    assert command("slow-queries", "scribemed", "--log", "undo").code == 0
    assert [in_new_session(system.target, setting) for setting in (slower_than, kind)] == before


def test_the_view_of_slow_queries_shows_those_of_more_than_a_second_of_this_database(system: System) -> None:
    slow = "select 'in another database', pg_sleep(1.01)"
    in_new_session(Target("postgres", make_conninfo(system.target.url, dbname="postgres")), slow)
    in_new_session(system.target, "select pg_sleep(1.01), 'here'")
    with psycopg.connect(system.target.url) as session:
        found = session.execute("select query, calls, mean_exec_time > 1000 from slow_queries").fetchall()
    # On a busy machine a statement of the migrations may have taken as long.
    assert [row for row in found if "pg_sleep" in row[0]] == [("select pg_sleep($1), $2", 1, True)]
    assert all(slow for _, _, slow in found)


@pytest.mark.parametrize("index", INDEXES)
def test_each_performance_index_answers_its_question(session: Session, index: str) -> None:
    session.execute("set local enable_seqscan = off")
    asked = f"explain {INDEXES[index]}".replace("ANYBODY", "md5('somebody')::uuid")
    plan = "\n".join(line for (line,) in session.execute(asked.encode()))
    assert index in plan
    assert "Sort" not in plan
    assert one(session, "select indisvalid from pg_index where indexrelid = %s::regclass", index) is True


def test_a_plan_is_measured_and_changes_nothing(command: Type, session: Session) -> None:
    before = one(session, "select count(*) from notes")
    found = command("explain", "scribemed", "select id from notes order by created_at", "--analyze", "--json").json
    assert found["plan"]["Plan"]["Actual Rows"] == before
    assert command("explain", "scribemed", "delete from note_diagnoses", "--analyze").code == 2
    assert one(session, "select count(*) from note_diagnoses") > 0


def test_one_join_gives_what_a_query_for_each_note_gives(session: Session) -> None:
    notes = session.execute("select id, provider_id from notes order by id").fetchall()
    loop = [
        (note, *session.execute("select first_name, last_name, email from users where id = %s", (provider,)).fetchone())  # type: ignore[misc]
        for note, provider in notes
    ]
    joined = session.execute(
        "select n.id, u.first_name, u.last_name, u.email from notes n join users u on u.id = n.provider_id order by 1"
    ).fetchall()
    assert joined == loop != []


@pytest.mark.parametrize(
    ("environment", "most", "kept", "idle_s", "waits_s", "statement_s"),
    [
        ("development", 5, 1, 60, 2, 0),
        ("test", 3, 1, 10, 2, 0),
        ("staging", 20, 5, 30, 3, 0),
        ("production", 50, 10, 30, 5, 10),
    ],
)
def test_each_environment_has_the_pool_of_the_document(
    system: System, environment: Environment, most: int, kept: int, idle_s: int, waits_s: float, statement_s: float
) -> None:
    found = pool_settings(environment, system.declaration.connection.pool)
    assert (found.most, found.size, found.idle_s, found.timeout_s) == (most, kept, idle_s, waits_s)
    pool = DatabasePool(system.target, found)
    try:
        assert pool.statistics.opened == 0, "what is not needed is not opened"
        with pool.connection() as connection:
            shown = connection.exec_driver_sql(
                "select extract(epoch from current_setting('statement_timeout')::interval)"
            )
            assert shown.scalar_one() == statement_s
            assert (pool.statistics.in_use, pool.statistics.idle, pool.statistics.limit) == (1, 0, most)
        assert pool.statistics.idle == 1
    finally:
        pool.close()
    assert pool.statistics.idle == 0


@pytest.mark.parametrize("environment", PROFILES)
def test_the_pool_on_the_replica_has_the_numbers_of_the_document_in_each_environment(
    system: System, environment: Environment
) -> None:
    found = pool_settings(environment, system.declaration.connection.replica_pool)
    assert (found.most, found.size, found.idle_s) == (20, 5, 30)


def test_without_a_url_a_command_says_which_variable_is_missing(
    command: Type, system: System, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYSTEM_URL")
    missing = command("migrate", "plan", "scribemed", "--json")
    assert (missing.code, missing.json["error"]["kind"]) == (2, "variable_not_set")
    assert "SYSTEM_URL" in missing.json["error"]["message"]


def test_where_no_replica_is_configured_the_primary_is_read(command: Type, system: System) -> None:
    platform = Platform(Project.at(system.project))
    found = read(platform, platform.declarations.get("scribemed"), lambda target: target.url)
    assert (found.value, found.from_replica) == (system.target.url, False)
    assert "SCRIBEMED_REPLICA_URL" in (found.reason or "")


def test_the_steps_of_the_pipeline_pass_on_postgresql_15(
    second_server: SecondServer, command: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    second_server.run("create database scribemed_test")
    monkeypatch.setenv("SYSTEM_URL", second_server.superuser_url("scribemed_test"))
    try:
        assert command("migrate", "apply", "scribemed").code == 0
        history = command("migrate", "history", "scribemed").out
        assert "organizations_and_users" in history.replace(" ", "_")
        assert "now at version 13" in command("migrate", "undo", "scribemed", "--yes").out
        assert "now at version 14" in command("migrate", "apply", "scribemed").out
        assert command("migrate", "plan", "scribemed", "--json").json["migrations"] == []
    finally:
        second_server.run("drop database scribemed_test with (force)")


def test_the_seed_for_tests_is_small_and_holds_an_organization(database: Target) -> None:
    with filled(database, "scribemed", "test") as connection:
        row = connection.execute("select count(*), min(status) from organizations").fetchone()
    assert row == (1, "active")


def test_a_backup_comes_back_beside_the_database_which_stays(command: Type, system: System, session: Session) -> None:
    patients = one(session, "select count(*) from patients")
    backup = command("backup", "create", "scribemed", "--json").json
    assert backup["status"] == "complete"
    drilled = command("drill", "scribemed", "--json").json
    assert (drilled["backup_id"], drilled["proven"]) == (backup["id"], True)
    assert len(drilled["tables"]) >= 12
    into = f"{system.target.name}_restore"
    refused = command("restore", "scribemed", "--into", system.target.name)
    assert refused.code != 0, "never over the live one, unless its name is said again"
    try:
        assert command("restore", "scribemed", "--into", into).code == 0
        restored = Target(into, make_conninfo(system.target.url, dbname=into))
        assert in_new_session(restored, "select count(*) from patients") == patients
    finally:
        with psycopg.connect(system.target.url, autocommit=True) as owner:
            owner.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(into)))
    assert one(session, "select count(*) from patients") == patients


def test_backups_are_kept_for_seven_days_and_their_wal_reaches_as_far_back(system: System) -> None:
    backups = system.declaration.backups
    assert backups is not None
    assert backups.retain.daily == 7
    assert backups.physical is not None
    assert backups.physical.wal_archive
    assert backups.physical.recovery_window.timedelta.days == 7


def test_metrics_hold_size_connections_and_the_ten_largest_tables(command: Type, session: Session) -> None:
    session.execute("select 1")
    found = command("metrics", "scribemed", "--json").json
    assert found["metrics"]["database_bytes"]["value"] > 1_000_000
    assert {"connections_active", "connections_idle_in_transaction"} <= found["metrics"].keys()
    largest = [table["name"] for table in found["worst"]["largest_tables"]]
    assert len(largest) == 10
    assert "public.audit_logs" in largest


@pytest.fixture
def application(session: Session) -> Session:
    """The session as a role of the application: it may read and write every table, and owns none."""
    session.execute(
        "create role scribemed_app;"
        "grant select, insert, update, delete on all tables in schema public to scribemed_app;"
        "grant execute on function user_at_sign_in(text), user_of_session(text) to scribemed_app"
    )
    session.execute("set local role scribemed_app")
    return session


def organizations(session: Session) -> list[str]:
    """Their ids; read as the owner."""
    session.execute("reset role")
    found = session.execute("select id::text from organizations order by 1").fetchall()
    session.execute("set local role scribemed_app")
    return [row[0] for row in found]


def ids(session: Session, table: str) -> set[Any]:
    return {row[0] for row in session.execute(sql.SQL("select id from {}").format(sql.Identifier(table)))}


def test_an_organization_sees_itself_its_people_and_what_they_did(application: Session) -> None:
    tables = ("organizations", "users", "sessions", "audit_logs")
    assert [ids(application, table) for table in tables] == [set()] * 4
    ours, theirs = organizations(application)[:2]
    seen = {}
    for organization in (ours, theirs):
        application.execute(ORGANIZATION, (organization,))
        assert one(application, "select string_agg(id::text, ',') from organizations") == organization
        assert one(application, "select string_agg(distinct organization_id::text, ',') from users") == organization
        for table in ("users", "sessions", "audit_logs"):
            seen[organization, table] = ids(application, table)
    for table in ("users", "sessions", "audit_logs"):
        assert seen[ours, table]
        assert seen[theirs, table]
        assert seen[ours, table] & seen[theirs, table] == set()


def test_an_organization_writes_nothing_of_another_and_changes_no_log(application: Session) -> None:
    ours, theirs = organizations(application)[:2]
    application.execute(ORGANIZATION, (theirs,))
    stranger = one(application, "select id from users limit 1")
    application.execute(ORGANIZATION, (ours,))
    own = one(application, "select id from users limit 1")
    log = "insert into audit_logs (user_id, action, entity) values (%s, 'view', 'patient')"
    application.execute(log, (own,))
    application.execute(log, (None,))
    assert application.execute("update users set first_name = 'x' where id = %s", (stranger,)).rowcount == 0
    assert application.execute("delete from sessions where user_id = %s", (stranger,)).rowcount == 0
    for statement, value in (
        (log, stranger),
        ("update users set organization_id = %s", theirs),
        ("update organizations set id = %s", theirs),
        ("delete from audit_logs where user_id = %s", own),
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege), application.transaction():
            application.execute(statement.encode(), (value,))


def test_who_signs_in_is_found_by_one_address_and_later_by_one_token(application: Session) -> None:
    """The statements of the page."""
    application.execute("reset role")
    address = one(application, "select email from users where deleted_at is null order by email limit 1")
    application.execute("set local role scribemed_app")
    user, organization, password = application.execute("select * from user_at_sign_in(%s)", (address,)).fetchone() or ()
    assert password.startswith("$2")
    assert one(application, "select count(*) from user_at_sign_in('%%')") == 0
    application.execute(ORGANIZATION, (str(organization),))
    token = "a" * 64
    application.execute(
        "insert into sessions (user_id, token_sha256, expires_at) values (%s, %s, now() + interval '1 hour')",
        (user, token),
    )
    application.execute(ORGANIZATION, ("",))
    found = application.execute("select * from user_of_session(%s)", (token,)).fetchall()
    assert found == [(user, organization)]
    application.execute(ORGANIZATION, (str(organization),))
    assert application.execute("update sessions set revoked_at = now() where token_sha256 = %s", (token,)).rowcount == 1
    assert one(application, "select count(*) from user_of_session(%s)", token) == 0


def test_nobody_but_who_was_granted_it_asks_who_signs_in(session: Session) -> None:
    session.execute("create role stranger")
    session.execute("set local role stranger")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("select * from user_at_sign_in('x')")


def test_the_routine_of_the_runbook_can_be_followed(command: Type) -> None:
    lines = [one.command.partition(" || ")[0].replace("shop", "scribemed") for one in typed(RUNBOOKS / "routine.md")]
    assert len(lines) > 10
    for line in lines:
        done = command(*shlex.split(line)[1:])
        assert done.code in (0, 1), f"{line}: {done.err}"
        assert done.out or done.err
