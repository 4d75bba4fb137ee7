"""A shop whose roles were made: five logins, each a member of one role, and what each may and may not do."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform_tests.installation import Installation

PASSWORD = "only for tests"
#: A login for each role.
LOGINS = {"monitor": "watcher", "migrate": "deployer", "backup": "dumper", "archive": "keeper", "read": "reader"}
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {{url_env: SHOP_URL, scratch_url_env: SCRATCH_URL, environment: test}}
  migrations: {{history_table: migrations.history}}
  partitioned_tables:
    - {{table: public.visit, column: at, interval: 1 month, premake: 1, start: 2 months}}
  backups: {backups}
  archives:
    - {{name: old, table: public.sale, column: at, older_than: 1 month, children: archive}}
  quality:
    - table: public.sale
      checks: [{{row_count: {{min: 1}}}}, {{not_null: customer_id}}]
  roles:
    prefix: {prefix}
    members: {members}
    public_keeps: []
"""
#: A protected table is among them: policies hide its rows from all but the owner and the dump.
MIGRATIONS = {
    "V1__shop.sql": """
        create table customer (id int generated always as identity primary key, name text not null);
        create table sale (id serial primary key, customer_id int references customer, at timestamptz not null);
        create table line (id int primary key, sale_id int not null references sale);
        create table visit (at timestamptz not null, page text) partition by range (at);
        create table salary (id int primary key, amount int);
        alter table salary enable row level security;
        create materialized view sums as select count(*) from sale;
        create view sales_of_today as select * from sale where at > now() - interval '1 day';
        insert into customer (name) select 'c' || g from generate_series(1, 20) g;
        insert into sale (customer_id, at)
            select g, case when g <= 10 then timestamptz '2020-01-01' else now() end from generate_series(1, 20) g;
        insert into line select g, 1 + g % 20 from generate_series(1, 40) g;
        insert into salary values (1, 100);
    """,
    "V2__index.sql": "create index line_sale on line (sale_id);",
    "U2__index.sql": "drop index line_sale;",
}


@dataclass
class Shop:
    """The declared shop on a server; ``url`` is a superuser's."""

    name: str
    url: str
    installation: Installation
    logins: dict[str, str] = field(default_factory=dict)
    """By role, the login that is a member of it."""

    def url_of(self, login: str) -> str:
        return make_conninfo(self.url, user=login, password=PASSWORD)

    def typed(self, role: str, *words: str, exit_code: int = 0) -> Any:
        """Type a command as the login of a role, or as the superuser; its document."""
        url = self.url if role == "superuser" else self.url_of(self.logins[role])
        self.installation.variables["SHOP_URL"] = url
        return self.installation.here(*words, exit_code=exit_code)

    def run(self, *statements: str) -> None:
        """Run statements as the superuser, each by itself."""
        with psycopg.connect(self.url, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())

    def ask(self, query: str, *values: Any) -> list[Any]:
        with psycopg.connect(self.url) as session:
            return session.execute(query.encode(), values).fetchall()


@contextmanager
def shop_on(server_url: str, ledger: Ledger, folder: Path, *, backups: str = "{}") -> Iterator[Shop]:
    """An empty database with its declaration, and five logins without any right; roles are still to be made."""
    name = f"shop_{uuid.uuid4().hex[:8]}"
    logins = {role: f"{name}_{login}" for role, login in LOGINS.items()}
    defs = folder / "defs" / "shop"
    (defs / "migrations").mkdir(parents=True)
    members = "{" + ", ".join(f"{role}: [{login}]" for role, login in logins.items()) + "}"
    (defs / "defs.yaml").write_text(DECLARATION.format(prefix=name, members=members, backups=backups))
    for file, text in MIGRATIONS.items():
        (defs / "migrations" / file).write_text(text)
    variables = {"DBPLATFORM_LEDGER_URL": ledger.target.url, "SCRATCH_URL": server_url}
    shop = Shop(
        name=name,
        url=make_conninfo(server_url, dbname=name),
        installation=Installation(Home(root=folder / "home"), folder=folder, variables=variables),
        logins=logins,
    )
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        for login in logins.values():
            admin.execute(
                sql.SQL("create role {} login password {}").format(sql.Identifier(login), sql.Literal(PASSWORD))
            )
        try:
            yield shop
        finally:
            admin.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            mine = admin.execute("select rolname from pg_roles where rolname like %s", (f"{name}%",)).fetchall()
            for (role,) in mine:
                admin.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
