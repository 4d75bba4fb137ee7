"""A migrated shop with a little of everything, and what its migrations make: built once, cloned for each change."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.migrations.drift.engine import Blueprint, DriftReport, Expected, blueprint, build, drift
from dbplatform.migrations.drift.mending import fix_sql
from dbplatform.migrations.engine import Files, MigrationPolicy, apply_migrations
from dbplatform.migrations.statements import split
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation

ROLES = ("drift_reader", "drift_writer")
PARTITIONED = (Relation("public", "event"),)
POLICY = MigrationPolicy(placeholders={"region": "eu"})

V1 = """
create extension citext;
create schema sales;
create type mood as enum ('sad', 'ok', 'happy');
create domain positive as int constraint positive_check check (value > 0);
create type price as (amount numeric(10,2), currency text);
create sequence invoice_number increment 10 start 100;
create function tax(amount numeric) returns numeric language sql as 'select amount * 0.19';
create function touched() returns trigger language plpgsql as $$
begin
    new.changed_at := now();
    return new;
end $$;
create function watched() returns event_trigger language plpgsql as 'begin end';
"""
V2 = """
create table customer (
    id bigint generated always as identity primary key,
    email varchar(200) not null,
    name text default 'nobody',
    mood mood,
    born date constraint born_check check (born > '1900-01-01'),
    code text collate "C",
    phone varchar(20),
    name_length int generated always as (length(name)) stored,
    changed_at timestamptz,
    constraint customer_email_key unique (email)
);
create index customer_name on customer (name);
create table purchase (
    id serial primary key,
    customer_id bigint not null,
    amount numeric(10,2) not null default 0,
    during tstzrange,
    constraint purchase_customer foreign key (customer_id) references customer (id) on delete cascade,
    constraint purchase_during exclude using gist (during with &&)
) with (fillfactor = 80);
comment on table customer is 'Who buys.';
comment on column customer.born is 'A day.';
create trigger customer_touched before update on customer for each row execute function touched();
create view buyer as select c.id, c.email, count(*) as purchases from customer c join purchase p on p.customer_id = c.id
    group by c.id;
create materialized view revenue as select customer_id, sum(amount) as amount from purchase group by customer_id;
create index revenue_customer on revenue (customer_id);
create statistics customer_names (dependencies) on name, email from customer;
create rule purchase_kept as on delete to purchase do instead nothing;
alter table customer enable row level security;
create policy own_mail on customer for select using (email = current_user);
grant select on customer to drift_reader;
grant select, insert on purchase to drift_writer;
grant update (name) on customer to drift_writer;
revoke execute on function tax(numeric) from public;
alter default privileges in schema sales grant select on tables to drift_reader;
create event trigger watch on ddl_command_end when tag in ('CREATE TABLE') execute function watched();
alter table customer replica identity using index customer_email_key;
create table sales.lead (id serial primary key, customer_id bigint references customer (id), said text);
create table log (at date not null, text text) partition by range (at);
create table log_2026 partition of log for values from ('2026-01-01') to ('2027-01-01');
create table event (at timestamptz not null, what text) partition by range (at);
create index event_what on event (what);
"""
R = "create or replace view ${region}_customer as select id, email from customer;"


@dataclass(frozen=True, slots=True)
class Shop:
    """A server on which the shop is built."""

    url: str
    template: Target
    plan: Blueprint
    expected: Expected

    @contextmanager
    def copy(self) -> Iterator[AutocommitConnection]:
        """The shop, to be changed."""
        with created(self.url, self.template.name) as target, connect(target, work="test") as connection:
            yield connection

    def drift(self, connection: AutocommitConnection) -> DriftReport:
        return drift(connection, self.plan, self.expected)


@contextmanager
def built(url: str, folder: Path) -> Iterator[Shop]:
    """The shop on the server of ``url``, and what its files build there; its roles are made and dropped."""
    for name, text in {"V1__kinds.sql": V1, "V2__tables.sql": V2, "R__views.sql": R}.items():
        (folder / name).write_text(text)
    files = Files.of(folder)
    with psycopg.connect(url, autocommit=True) as server:
        for role in ROLES:
            server.execute(sql.SQL("create role {}").format(sql.Identifier(role)))
        try:
            with created(url) as template, created(url) as scratch:
                with connect(template, work="test") as live:
                    apply_migrations(live, files, POLICY)
                    plan = blueprint(live, files, POLICY, partitioned=PARTITIONED, database="shop")
                with connect(scratch, work="test") as empty:
                    expected = build(empty, plan, server_wide=False)
                yield Shop(url, template, plan, expected)
        finally:
            for role in ROLES:
                server.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@contextmanager
def created(url: str, template: str = "template1") -> Iterator[Target]:
    """A database for the block."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(url, autocommit=True) as server:
        server.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(template)))
        try:
            yield Target(name, make_conninfo(url, dbname=name))
        finally:
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def mend(connection: AutocommitConnection, report: DriftReport) -> None:
    """Run the SQL that mends, statement by statement, as psql does."""
    for difference in report.differences:
        fix = fix_sql(difference)
        for statement in split(fix, file=Path("fix.sql")).statements if fix else ():
            connection.execute(statement.sql.encode())
