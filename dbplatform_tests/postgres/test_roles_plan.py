"""The plan of roles: each statement has its undo, what was granted by hand is told, and nothing is taken unasked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

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
