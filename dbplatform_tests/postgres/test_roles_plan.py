"""The plan of roles: each statement has its undo, what was granted by hand is told, and nothing is taken unasked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.ledger.ledger import Ledger
from dbplatform_tests.postgres.roles_support import PASSWORD, Shop, shop_on


@pytest.fixture
def shop(server_url: str, ledger: Ledger, tmp_path: Path) -> Iterator[Shop]:
    with shop_on(server_url, ledger, tmp_path) as shop:
        yield shop


def plan(shop: Shop, exit_code: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = shop.typed("superuser", "roles", "plan", "shop", exit_code=exit_code)
    return found


def apply(shop: Shop) -> dict[str, Any]:
    made: dict[str, Any] = shop.typed("superuser", "roles", "apply", "shop", "--yes")
    return made


_RIGHTS = """
    with acls(what, name, owner, acl) as (
        select 'relation', c.oid::regclass::text, relowner,
               coalesce(relacl, acldefault(case relkind when 'S' then 's' else 'r' end::"char", relowner))
        from pg_class c join pg_namespace n on n.oid = relnamespace
        where relkind in ('r', 'v', 'S') and nspname !~ '^pg_' and nspname <> 'information_schema'
        union all select 'schema', nspname, nspowner, coalesce(nspacl, acldefault('n', nspowner)) from pg_namespace
        union all select 'database', datname, datdba, coalesce(datacl, acldefault('d', datdba))
                  from pg_database where datname = current_database()
        union all select 'default', defaclnamespace::text, defaclrole, defaclacl from pg_default_acl
    )
    select what, name, owner::regrole::text, array(select a::text from unnest(acl) a order by 1) from acls
    union all
    select 'member', member::regrole::text, roleid::regrole::text, null from pg_auth_members
    where member::regrole::text like %(mine)s
    union all
    select 'role', rolname, rolbypassrls::text, null from pg_roles where rolname like %(mine)s
    order by 1, 2, 3
"""


def rights(shop: Shop) -> list[Any]:
    """Everything that is granted in the database and who owns it, the roles of the shop, and whose members they are."""
    with psycopg.connect(shop.url) as session:
        return session.execute(_RIGHTS, {"mine": f"{shop.name}%"}).fetchall()


def test_the_undo_of_every_step_takes_everything_back(shop: Shop) -> None:
    shop.run(
        "create table customer (id serial primary key, name text)",
        "create view names as select name from customer",
        "create function one() returns int language sql as 'select 1'",
        "create type mood as enum ('good', 'bad')",
        "grant connect on database " + shop.name + " to public",
    )
    before = rights(shop)
    made = apply(shop)
    assert {step["sql"].split()[0] for step in made["steps"]} == {"create", "alter", "grant", "revoke"}
    assert plan(shop, exit_code=0)["steps"] == []
    assert apply(shop)["steps"] == []
    shop.run(*(step["undo"] for step in reversed(made["steps"])))
    assert rights(shop) == before


def test_what_was_granted_by_hand_is_told_and_taken(shop: Shop) -> None:
    shop.run("create table customer (id int primary key, name text)")
    apply(shop)
    read, backup = f"{shop.name}_read", f"{shop.name}_backup"
    by_hand = (
        f"grant insert on customer to {read}",
        f"grant update (name) on customer to {read}",
        f"grant select on customer to {read} with grant option",
        f"grant pg_write_all_data to {backup}",
        f"alter role {backup} createdb",
        f"grant create on schema public to {read}",
        f"alter default privileges in schema public grant delete on tables to {read}",
        "grant temporary on database " + shop.name + " to public",
    )
    shop.run(*by_hand)
    found = plan(shop)
    assert len(found["steps"]) == 8
    assert all(step["takes_away"] for step in found["steps"])
    apply(shop)
    assert plan(shop, exit_code=0)["steps"] == []
    with psycopg.connect(shop.url_of(shop.logins["read"])) as session:
        assert session.execute("select count(*) from customer").fetchone() == (0,)


def test_the_tables_of_an_application_are_handed_over_and_it_keeps_its_rows(shop: Shop) -> None:
    app = f"{shop.name}_app"
    shop.run(
        f"create role {app} login password '{PASSWORD}'",
        f"grant connect on database {shop.name} to {app}",
        f"grant create on schema public to {app}",
        f"set role {app}; create table basket (id serial primary key, item text)",
    )
    (step,) = [one for one in apply(shop)["steps"] if "owner to" in one["sql"] and "basket" in one["sql"]]
    assert "ACCESS EXCLUSIVE" in step["lock"]
    with psycopg.connect(shop.url_of(app), autocommit=True) as session:
        session.execute("insert into basket (item) values ('x')")
        session.execute("update basket set item = 'y'")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("alter table basket add column more int")


#: What a login without any right on salaries makes, so that its own code runs with the rights of whoever owns it later.
TRAPS = """
    create view peek as select * from salary;
    create function peep() returns bigint language sql security definer as 'select sum(amount) from public.salary';
    create materialized view kept as select 1 as a;
    create function called(a int) returns int immutable language plpgsql as 'begin return a; end';
    create table indexed (a int);
    create index on indexed (called(a));
    create table measured (a int);
    create statistics of_calls on (called(a)) from measured;
    create table ruled (a int);
    create rule peek_too as on insert to ruled do also insert into stolen select amount from salary;
"""
HARMLESS = """
    create table plain (a int);
    create view invoked with (security_invoker = on, security_barrier) as select * from salary;
    create function inlined() returns int language sql as 'select 1';
    create index on plain ((a + 1));
"""
_OWNERS = """
    select relname, relowner::regrole::text from pg_class
    where relnamespace = 'public'::regnamespace and relkind in ('r', 'v', 'm') and relname <> 'salary'
    union all select proname, proowner::regrole::text from pg_proc where pronamespace = 'public'::regnamespace
"""


def application(shop: Shop, *statements: str) -> str:
    """A login that may make objects in public, after it has made these."""
    app = f"{shop.name}_app"
    shop.run(
        f"create role {app} login password '{PASSWORD}'",
        f"grant connect on database {shop.name} to {app}",
        f"grant create on schema public to {app}",
        f"set role {app}",
        *statements,
    )
    return app


def test_code_that_runs_as_its_owner_is_handed_over_from_trusted_owners_alone(shop: Shop) -> None:
    shop.run("create table salary (amount int)", "create table stolen (amount int)", "insert into salary values (100)")
    app = application(shop, TRAPS, HARMLESS)
    shop.run("create view mine as select * from salary")
    made, migrate = apply(shop), f"{shop.name}_migrate"
    owners = dict(shop.ask(_OWNERS))
    stays = {"peek", "peep", "kept", "indexed", "measured", "ruled"}
    assert {name for name, owner in owners.items() if owner == app} == stays
    assert {owner for name, owner in owners.items() if name not in stays} == {migrate}
    (mine,) = [step for step in made["steps"] if "public.mine" in step["sql"]]
    assert f"has those of {migrate} from then on" in mine["why"]
    notes = plan(shop, exit_code=0)["notes"]
    assert len([note for note in notes if f"stays with {app}" in note]) == len(stays)
    assert any(f"ALTER ROUTINE peep() OWNER TO {migrate};" in note for note in notes)
    with psycopg.connect(shop.url_of(app), autocommit=True) as session:
        for attempt in ("select * from peek", "select peep()", "insert into ruled values (1)"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for table s"):
                session.execute(attempt.encode())


def test_what_a_declared_deployer_made_is_handed_over_as_it_is(shop: Shop) -> None:
    deployer = shop.logins["migrate"]
    shop.run(f"grant create on schema public to {deployer}", f"set role {deployer}", "create view one as select 1")
    apply(shop)
    assert shop.ask("select viewowner from pg_views where viewname = 'one'") == [(f"{shop.name}_migrate",)]


def test_a_hand_over_tells_what_changes_for_the_former_owner_and_whose_code_comes_along(shop: Shop) -> None:
    app = application(
        shop,
        "create table guarded (a int)",
        "alter table guarded enable row level security",
        "create function noted() returns trigger language plpgsql as 'begin return new; end'",
        "create trigger noted before insert on guarded for each row execute function noted()",
    )
    (step,) = [one for one in plan(shop)["steps"] if "TABLE public.guarded owner" in one["sql"]]
    assert f"bind {app} from then on" in step["why"]
    assert f"runs noted(), by somebody without the rights of {shop.name}_migrate" in step["why"]


def test_a_declared_login_that_would_lose_its_tables_is_told_what_to_declare(shop: Shop) -> None:
    reader = shop.logins["read"]
    shop.run(f"grant create on schema public to {reader}", f"set role {reader}", "create table mine (a int)")
    told = f"declare members: {{migrate: [{reader}]}}."
    found = shop.typed("read", "roles", "plan", "shop", exit_code=1)
    assert [note for note in found["notes"] if note.endswith(told)] != []
    shop.installation.variables["ADMIN_URL"] = shop.url
    found = shop.typed("read", "roles", "plan", "shop", "--url-env", "ADMIN_URL", exit_code=1)
    assert [note for note in found["notes"] if note.endswith(told)] != []


def test_a_superusers_url_of_another_database_is_refused(shop: Shop) -> None:
    shop.installation.variables["ADMIN_URL"] = make_conninfo(shop.url, dbname="postgres")
    for act in (("plan",), ("apply", "--yes")):
        refused = shop.typed("read", "roles", act[0], "shop", *act[1:], "--url-env", "ADMIN_URL", exit_code=2)
        assert refused["error"]["kind"] == "another_database"
        assert f"/{shop.name}" in refused["error"]["hint"]
    assert shop.ask("select from pg_roles where rolname = %s", f"{shop.name}_read") == []


def test_a_declared_url_that_does_not_answer_is_told_as_what_nobody_has_compared(shop: Shop) -> None:
    variables = {"SHOP_URL": "postgresql://nobody@127.0.0.1:1/nothing", "ADMIN_URL": shop.url}
    shop.installation.variables.update(variables)
    found = shop.installation.here("roles", "plan", "shop", "--url-env", "ADMIN_URL", exit_code=1)
    assert found["notes"][0].startswith("nobody has checked that ADMIN_URL leads to the database that is declared")
    assert shop.name in found["notes"][0]


def test_a_role_that_was_there_and_can_log_in_is_told_and_loses_that(shop: Shop) -> None:
    read = f"{shop.name}_read"
    shop.run(f"create role {read} login")
    found = plan(shop)
    (step,) = [one for one in found["steps"] if "nologin" in one["sql"] and read in one["sql"]]
    assert (step["sql"], step["undo"]) == (f'alter role "{read}" nologin;', f'alter role "{read}" login;')
    assert step["takes_away"]
    assert any(note.startswith(f"{read} was there and can log in") for note in found["notes"])
    apply(shop)
    assert shop.ask("select rolcanlogin from pg_roles where rolname = %s", read) == [(False,)]


def test_rights_are_not_taken_unasked(shop: Shop) -> None:
    refused = shop.typed("superuser", "roles", "apply", "shop", exit_code=2)
    assert "take rights away" in refused["error"]["message"]
    assert shop.ask("select from pg_roles where rolname = %s", f"{shop.name}_read") == []


def test_a_login_may_look_and_may_not_apply(shop: Shop) -> None:
    apply(shop)
    shop.run(f"drop role {shop.logins['monitor']}", f"grant {shop.name}_read to {shop.logins['backup']}")
    found = shop.typed("read", "roles", "plan", "shop")
    assert [note.split(":")[0] for note in found["notes"]] == [
        f"{shop.logins['monitor']} is no role that can log in",
        f"{shop.logins['backup']} is a member of {shop.name}_read, and nobody has declared it.",
    ]
    shop.run(f"revoke usage on schema public from {shop.name}_read")
    refused = shop.typed("read", "roles", "apply", "shop", "--yes", exit_code=2)
    assert refused["error"]["kind"] == "may_not_make_roles"
    assert "--url-env" in refused["error"]["hint"]
    shop.installation.variables["ADMIN_URL"] = shop.url
    shop.typed("read", "roles", "apply", "shop", "--yes", "--url-env", "ADMIN_URL")


def test_a_refused_statement_leaves_nothing_behind(shop: Shop) -> None:
    shop.run("create table customer (id int primary key)")
    with psycopg.connect(shop.url) as holder:
        holder.execute("select from customer")
        refused = shop.typed("superuser", "roles", "apply", "shop", "--yes", exit_code=3)
    assert refused["error"]["kind"] == "lock_not_acquired"
    assert shop.ask("select from pg_roles where rolname = %s", f"{shop.name}_read") == []


def test_no_password_is_in_the_plan_nor_in_the_record(shop: Shop, ledger: Ledger) -> None:
    made = apply(shop)
    with psycopg.connect(ledger.target.url) as session:
        (summary,) = session.execute("select summary::text from ledger.operation where kind = 'roles'").fetchone() or ()
    assert "password" not in str(made).lower() + summary.lower()
    assert PASSWORD not in str(made) + summary
