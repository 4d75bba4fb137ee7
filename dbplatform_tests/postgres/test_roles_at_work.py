"""With the roles that ``roles apply`` made, and no other right, everything works; what is forbidden PostgreSQL refuses.

On the tests' own server; on Debian's PostgreSQL 15 as a drill.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform_tests.postgres.physical_support import ledger_of
from dbplatform_tests.postgres.roles_support import LOGINS, Shop, shop_on

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

#: What a dump reads, and nobody else.
_SECRETS = (
    "select rolpassword from pg_authid",
    "select secret from vault.secret",
)
#: What every role is refused; {other} is a session of the superuser.
_OF_THE_SERVER = (
    "select pg_read_file('/etc/passwd')",
    "select lo_import('/etc/passwd')",
    "copy (select 1) to program 'true'",
    "copy (select 1) to '/tmp/refused'",
    "alter system set work_mem = '1GB'",
    "create role intruder",
    "create database intruder",
    "create extension dblink",
    "set session_replication_role = replica",
    "select pg_terminate_backend({other})",
    "select pg_stat_reset()",
    "grant pg_write_all_data to current_user",
    "alter role {superuser} nologin",
    "set role {superuser}",
    "insert into vault.secret values ('x')",
    "drop schema vault cascade",
)
_OF_THE_SCHEMA = (
    "create table intruder (a int)",
    "create schema intruder",
    "create function intruder() returns int language sql as 'select 1'",
    "alter table customer add column intruder int",
    "drop table customer",
    "truncate customer",
    "create index on customer (name)",
    "alter table salary disable row level security",
    "create policy intruder on salary using (true)",
    "alter table customer owner to current_user",
    "do $$ begin lock table customer in exclusive mode; end $$",
    "insert into customer (name) values ('x')",
    "update customer set name = 'x'",
    "delete from customer",
    "delete from migrations.history",
    "set role {migrate}",
)
#: By role: what PostgreSQL refuses it, beside what it refuses all of them.
FORBIDDEN = {
    "migrate": (
        *_OF_THE_SERVER,
        "create function c() returns int language c as 'x'",
        "alter database {database} owner to {read}",
    ),
    "read": (
        *_SECRETS,
        *_OF_THE_SERVER,
        *_OF_THE_SCHEMA,
        "create temporary table t (a int)",
        "select nextval('sale_id_seq')",
        "select setval('sale_id_seq', 1)",
        "insert into sale (at) values (now())",
        "delete from sale",
        "refresh materialized view sums",
    ),
    "monitor": (
        *_SECRETS,
        *_OF_THE_SERVER,
        *_OF_THE_SCHEMA,
        "create temporary table t (a int)",
        "select * from customer",
        "select name from customer",
        "select * from sales_of_today",
        "copy sale to stdout",
        "select nextval('sale_id_seq')",
    ),
    "backup": (
        *_OF_THE_SERVER,
        *_OF_THE_SCHEMA,
        "create temporary table t (a int)",
        "delete from sale",
        "insert into salary values (2, 2)",
        "select setval('sale_id_seq', 1)",
        "select pg_promote()",
    ),
    "archive": (
        *_SECRETS,
        *_OF_THE_SERVER,
        *_OF_THE_SCHEMA,
        "select * from customer",
        "select * from salary",
        "select * from visit",
        "truncate sale",
        "drop table sale",
        "alter table sale disable trigger all",
        "delete from sums",
    ),
}
#: What each role is for, as it is typed, in an order that works.
AT_WORK = (
    ("migrate", "migrate plan shop"),
    ("migrate", "migrate apply shop"),
    ("migrate", "partition apply shop"),
    ("migrate", "migrate undo shop --yes"),
    ("migrate", "migrate apply shop"),
    ("migrate", "migrate history shop"),
    ("migrate", "migrate drift shop"),
    ("superuser", "roles apply shop --yes"),
    ("monitor", "metrics shop"),
    ("monitor", "connections shop"),
    ("monitor", "slow-queries shop"),
    ("monitor", "roles plan shop"),
    ("read", "check shop"),
    ("read", "roles plan shop"),
    ("backup", "backup create shop"),
    ("backup", "drill shop"),
    ("archive", "archive plan shop"),
    ("archive", "archive apply shop"),
    ("archive", "archive list shop"),
    ("archive", "archive verify shop"),
    ("read", "check shop"),
    ("superuser", "roles plan shop"),
)


@pytest.fixture(scope="module", params=["own", pytest.param("debian", marks=pytest.mark.drill)])
def shop(
    request: pytest.FixtureRequest, server_url: str, ledger_template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Shop]:
    """The shop after everything was done by the logins."""
    where = server_url
    if request.param == "debian":
        second: SecondServer = request.getfixturevalue("second_server")
        where = second.superuser_url()
    with (
        ledger_of(server_url, ledger_template) as ledger,
        shop_on(where, ledger, tmp_path_factory.mktemp("roles")) as shop,
    ):
        shop.typed("superuser", "roles", "apply", "shop", "--yes")
        for role, words in AT_WORK:
            shop.typed(role, *words.split())
        shop.run("create schema vault", "create table vault.secret (secret text)")
        yield shop


def test_everything_works_with_the_made_roles_alone(shop: Shop) -> None:
    assert shop.ask("select count(*) from sale") == [(10,)], "the old ones are archived"
    assert shop.ask("select count(*) from line") == [(20,)], "and their lines along"
    assert shop.ask("select distinct tableowner from pg_tables where schemaname = 'public'") == [
        (f"{shop.name}_migrate",)
    ], "what a deployer makes belongs to the role"
    assert shop.ask("select distinct tableowner from pg_tables where starts_with(tablename, 'archive_')") == [
        (f"{shop.name}_archive",)
    ]
    listed = shop.typed("archive", "archive", "list", "shop")["archives"]
    archived = {one["table"]: one for one in listed}
    assert {table: (one["rows"], one["status"]) for table, one in archived.items()} == {
        "public.sale": (10, "deleted"),
        "public.line": (20, "deleted"),
    }
    shop.typed("archive", "archive", "restore", "shop", archived["public.sale"]["id"], "--yes")
    assert shop.ask("select count(*) from sale") == [(20,)]


def test_a_dump_holds_the_rows_that_policies_hide(shop: Shop) -> None:
    (backup,) = shop.typed("backup", "backup", "list", "shop")["backups"]
    assert (backup["status"], backup["proven_at"] is not None) == ("complete", True)


def test_monitoring_lacks_nothing_but_what_would_show_rows(shop: Shop) -> None:
    found = shop.typed("monitor", "metrics", "shop")
    assert found["missing"] == []
    assert {"connections_used_ratio", "sequence_used_ratio", "dead_tuple_ratio", "wal_bytes"} <= found["metrics"].keys()


@pytest.mark.parametrize("role", FORBIDDEN)
def test_every_forbidden_act_is_refused_by_the_server_itself(shop: Shop, role: str) -> None:
    with (
        psycopg.connect(shop.url) as other,
        psycopg.connect(shop.url_of(shop.logins[role]), autocommit=True) as session,
    ):
        names = {
            "{other}": str(other.info.backend_pid),
            "{superuser}": f'"{other.info.user}"',
            "{database}": shop.name,
            "{migrate}": f"{shop.name}_migrate",
            "{read}": f"{shop.name}_read",
        }
        outcome = {act: refusal(session, act, names) for act in FORBIDDEN[role]}
    assert outcome == dict.fromkeys(FORBIDDEN[role], "42501")


def refusal(session: psycopg.Connection[Any], act: str, names: dict[str, str]) -> str | None:
    """The SQLSTATE by which an act is refused."""
    for word, name in names.items():
        act = act.replace(word, name)
    try:
        session.execute(act.encode())
    except psycopg.Error as refused:
        return refused.sqlstate
    return None


def test_whoever_has_no_role_does_not_even_come_in(shop: Shop) -> None:
    stranger = f"{shop.name}_stranger"
    shop.run(f"create role {stranger} login password 'only for tests'")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        psycopg.connect(shop.url_of(stranger))


def test_no_role_can_log_in_and_none_has_a_password(shop: Shop) -> None:
    roles = [f"{shop.name}_{role}" for role in LOGINS]
    assert shop.ask(
        "select count(*), bool_or(rolcanlogin), bool_or(rolsuper), bool_or(rolpassword is not null)"
        " from pg_authid where rolname = any(%s)",
        roles,
    ) == [(5, False, False, False)]


@pytest.mark.drill
def test_a_base_backup_is_taken_by_a_login_that_may_replicate(server_url: str, ledger: Ledger, tmp_path: Path) -> None:
    with shop_on(server_url, ledger, tmp_path, backups="{physical: {wal_archive: false}}") as shop:
        shop.typed("superuser", "roles", "apply", "shop", "--yes")
        made = shop.typed("backup", "backup", "create", "shop", "--kind", "physical")
        assert (made["kind"], made["status"]) == ("physical", "complete")
        shop.typed("backup", "backup", "restore-point", "shop", "before")
        assert shop.typed("read", "backup", "restore-point", "shop", "again", exit_code=3)
