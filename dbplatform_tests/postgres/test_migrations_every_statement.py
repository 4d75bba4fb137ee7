"""Every kind of SQL command of PostgreSQL 14 to 18 stays whole in a script, and the server takes each piece as one.

The commands are those of the manual, part VI, "SQL Commands". A piece is only parsed (a prepared statement can hold one
command, or is refused as ``42601``), never run.
"""

from __future__ import annotations

import random

import psycopg
import pytest
from psycopg.pq import ExecStatus

from dbplatform.migrations.statements import split

#: A command or more of each kind; a number in front: the first major version whose server knows it.
COMMANDS: list[str | tuple[int, str]] = [
    "abort",
    "alter aggregate a(int) owner to current_user",
    "alter collation c refresh version",
    "alter conversion c rename to d",
    "alter database d set work_mem = '8MB'",
    "alter database d set tablespace t",
    "alter default privileges in schema s grant select on tables to public",
    "alter domain d add constraint c check (value <> ';') not valid",
    "alter event trigger e disable",
    "alter extension e update to '1.1'",
    "alter foreign data wrapper f options (add a 'b;c')",
    "alter foreign table f alter column a type text",
    "alter function f(int) set search_path = a, b",
    "alter group g add user u",
    "alter index i attach partition j",
    "alter index i alter column 1 set statistics 100",
    "alter language l rename to m",
    "alter large object 1 owner to current_user",
    "alter materialized view m cluster on i",
    "alter operator @@ (int, int) set (restrict = none)",
    "alter operator class c using btree rename to d",
    "alter operator family f using btree add operator 1 < (int4, int2), function 1 btint42cmp(int4, int2)",
    "alter policy p on t using (a > 1) with check (b <> ';')",
    "alter procedure p() reset all",
    "alter publication p add table t",
    (15, "alter publication p set tables in schema s, table t (a, b) where (a > 1)"),
    "alter role r with password 'a;b' valid until 'infinity'",
    "alter routine f(int) rename to g",
    "alter rule r on t rename to q",
    "alter schema s owner to current_user",
    "alter sequence s restart with 7 owned by none",
    "alter server s options (set host 'x;y')",
    "alter statistics s set statistics 10",
    "alter subscription s set publication p with (refresh = false)",
    "alter system set work_mem = '8MB'",
    "alter table t add column a int generated always as (b * 2) stored, add constraint c unique (a)",
    "alter table only t alter a set data type numeric(1, 2) using a::numeric(1, 2), validate constraint c",
    "alter table p detach partition c concurrently",
    "alter table p attach partition c for values from (minvalue) to ('2026-01-01')",
    (17, "alter table t alter column a set expression as (b || ';')"),
    (18, "alter table t alter constraint c not enforced"),
    "alter tablespace t set (random_page_cost = 1.1)",
    "alter text search configuration c add mapping for word with d",
    "alter text search dictionary d (stopwords = 'a;b')",
    "alter text search parser p rename to q",
    "alter text search template t rename to u",
    "alter trigger t on u rename to v",
    "alter type e add value if not exists 'a;b' before 'c'",
    "alter type c alter attribute a type text cascade",
    "alter user u nologin",
    "alter user mapping for u server s options (set password 'a;''b')",
    "alter view v alter column a set default ';'",
    "analyze (verbose, skip_locked) t (a, b)",
    "begin isolation level serializable, read only, deferrable",
    "call p(1, b => ';')",
    "checkpoint",
    "close all",
    "cluster verbose t using i",
    "comment on column t.a is 'it''s; -- no comment'",
    "commit and no chain",
    "commit prepared 'a;b'",
    "copy t (a, b) to '/tmp/a;b' with (format csv, header, quote '\"', force_quote (a))",
    "copy (select ';') to stdout",
    "create access method m type index handler h",
    "create aggregate a (int) (sfunc = int4pl, stype = int, initcond = ';')",
    "create aggregate a (order by int) (sfunc = f, stype = internal, finalfunc = g)",
    "create cast (int as text) with function f(int) as assignment",
    "create collation c (provider = icu, locale = 'de-u-co-phonebk', deterministic = false)",
    "create default conversion c for 'LATIN1' to 'UTF8' from f",
    "create database d template template0 encoding 'UTF8'",
    "create domain d as text default ';' constraint c check (value ~ '^[;]+$')",
    "create event trigger e on ddl_command_start when tag in ('CREATE TABLE', 'DROP TABLE') execute function f()",
    "create extension if not exists e with schema s version '1;0' cascade",
    "create foreign data wrapper f handler h options (a ';')",
    "create foreign table f (a int options (column_name 'x;')) server s options (schema_name 'a')",
    "create or replace function f(a int default 1, variadic b text[] default '{;}') returns table (c int, d text)\n"
    "language plpgsql stable strict as $body$\nbegin\n  return query select 1; -- ;\nend;\n$body$",
    "create function f() returns trigger language plpgsql as 'begin return new; end'",
    "create function f(a int) returns int language sql return case when a > 1 then a else 1 end",
    "create function f(a int) returns int language sql begin atomic select a; end",
    "create or replace function f(a int) returns setof int language sql stable begin atomic\n"
    "  with x as (select case a when 1 then 2 else 3 end as y) select y from x;\n"
    "  insert into t values (case when a > 1 then ';' else 'end' end) returning a;\nend",
    "create procedure p(inout a int) language sql begin atomic update t set b = a; select 1; end",
    "create function f() returns int language c as 'lib;a', 'symbol'",
    "create group g",
    "create unique index concurrently if not exists i on only t using btree (lower(a) desc nulls last, (b || ';'))"
    " include (c) with (fillfactor = 70) where b is not null",
    (15, "create unique index i on t (a) nulls not distinct"),
    "create language l",
    "create materialized view m as select ';' as a with no data",
    "create operator <=> (leftarg = int, rightarg = int, procedure = int4eq)",
    "create operator class c default for type int using btree as operator 1 <, function 1 btint4cmp(int4, int4)",
    "create operator family f using hash",
    "create policy p on t as restrictive for update to public using (a > 1) with check (b = ';')",
    "create publication p for table t, u with (publish = 'insert, update')",
    (15, "create publication p for tables in schema s"),
    "create role r with login password 'a''b;c' in role q",
    "create rule r as on insert to t where new.a > 1 do instead (delete from v; notify x)",
    "create schema s create table t (a int) create view v as select a from t create index on t (a)",
    "create sequence s as smallint increment by -1 minvalue 1 maxvalue 9 start 9 cycle owned by t.a",
    "create server s foreign data wrapper f options (host 'a;b')",
    "create statistics s (ndistinct, mcv) on a, (b || ';') from t",
    "create subscription s connection 'host=a dbname=b;' publication p with (connect = false)",
    "create table t (a int generated by default as identity (start 7), b text collate \"C\" default 'x;y' not null,"
    " c int references u on delete cascade, exclude using gist (c with =) where (a > 1), check (b <> ';'))"
    " partition by range (a, (lower(b)))",
    "create table c partition of p (constraint x check (a > 0)) for values in (1, null, ';')",
    "create unlogged table t (like u including all) with (fillfactor = 70)",
    'create temporary table t on commit drop as select 1 as "a;b"',
    "create table t of ty (a with options default 1)",
    (18, "create table t (a int, b int generated always as (a * 2) virtual, c int not null not enforced)"),
    (18, "create table t (id int4range, valid tstzrange, primary key (id, valid without overlaps))"),
    "create tablespace t location '/a;b'",
    "create text search configuration c (copy = pg_catalog.english)",
    "create text search dictionary d (template = simple, stopwords = 'a;b')",
    "create text search parser p (start = a, gettoken = b, end = c, lextypes = d)",
    "create text search template t (lexize = l)",
    "create transform for t language l (from sql with function f(internal), to sql with function g(internal))",
    "create constraint trigger t after insert or update of a on u deferrable initially deferred for each row"
    " when (new.a > ';') execute function f('a;b')",
    "create type c as (a int, b text)",
    "create type e as enum ('a;', 'b''')",
    "create type r as range (subtype = int, subtype_diff = int4mi)",
    "create type b (input = i, output = o, like = int4)",
    "create user mapping for public server s options (user 'a', password ';')",
    "create or replace recursive view v (a) as values (1) union all select a + 1 from v where a < 9",
    "deallocate all",
    "declare c insensitive scroll cursor with hold for select ';'",
    "with gone as (delete from t using u where t.a = u.a returning t.*) insert into log select * from gone",
    "discard plans",
    "do language plpgsql $$ declare a int := 1; begin if a > 0 then raise notice '%;', a; end if; end $$",
    "drop index concurrently if exists a.b",
    "drop owned by current_user cascade",
    "drop operator class if exists c using btree",
    "drop function f(int), g(text) cascade",
    "drop table a, b restrict",
    "end",
    "execute p(1, ';')",
    "explain (analyze, buffers, format json) select ';'",
    "fetch forward 5 from c",
    "grant select (a, b), update (c) on t to public with grant option",
    "grant r to q with admin option",
    "import foreign schema s limit to (a, b) from server f into t",
    "insert into t as x (a, b) overriding system value values (1, ';'), (default, $$;$$)"
    " on conflict (a) where b is not null do update set b = excluded.b || E'\\';' where x.a > 1 returning *",
    (18, "update t set a = 1 returning old.a, new.a"),
    "listen c",
    "load 'lib;a'",
    "lock table only t in share row exclusive mode nowait",
    (15, "merge into t using u on t.a = u.a when matched and u.b = ';' then delete when not matched then do nothing"),
    (17, "merge into t using u on t.a = u.a when not matched by source then delete returning merge_action(), t.*"),
    "move last in c",
    "notify c, 'a;b'",
    "prepare p (int) as select $1 || ';'",
    "prepare transaction 'a;b'",
    "reassign owned by a to b",
    "refresh materialized view concurrently m",
    "reindex (verbose, tablespace t) table concurrently u",
    "release savepoint a",
    "reset all",
    "revoke all privileges on all tables in schema s from public cascade",
    "rollback to savepoint a",
    "savepoint a",
    "security label for p on table t is 'a;b'",
    "select 1 as \"a;b\", U&'d\\0061t;', $q$;$q$, E'\\';', B'01', x'ff', 'a'\n'b;' from t window w as () for update",
    "select a[1:2], (b).c, d::text, array[1, 2], '{\"a;\": 1}'::jsonb -> 'a;', 1 operator(pg_catalog.+) 2",
    (16, "select json_arrayagg(a order by b null on null), 0x1f, 1_000"),
    (17, "select * from json_table('[]', '$[*]' columns (a int path '$.a;'))"),
    'set local search_path to a, "b;c"',
    "set constraints all deferred",
    "set session characteristics as transaction read only",
    "set time zone 'Europe/Zurich'",
    "show all",
    "start transaction read only",
    "table t",
    "truncate only t, u * restart identity cascade",
    "unlisten *",
    "update only t as x set (a, b) = (select 1, ';'), c = default from u where current of cur",
    "vacuum (full, analyze) t (a)",
    "values (1, ';'), (2, $$;$$)",
    "select /* a /* nested; */ comment; */ 1 -- and; one more\n + 2",
]


def test_every_command_is_one_statement_for_the_splitter_and_for_the_server(server_url: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        version = connection.info.server_version // 10000
        for command in COMMANDS:
            since, sql = command if isinstance(command, tuple) else (14, command)
            assert [s.sql for s in split(f"{sql};").statements] == [sql], sql
            if since <= version:
                result = connection.pgconn.prepare(b"", sql.encode())
                state = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
                assert result.status == ExecStatus.COMMAND_OK or state != b"42601", (
                    sql,
                    result.error_message.decode(),
                )


@pytest.mark.parametrize("seed", range(5))
def test_all_of_them_in_one_script_come_apart_in_their_order(seed: int) -> None:
    shuffled = [command if isinstance(command, str) else command[1] for command in COMMANDS]
    random.Random(seed).shuffle(shuffled)
    between = [";\n", " ; ", ";\r\n-- a comment; with 'quotes\n", ";/* ; */", ";;\n"]
    text = "".join(sql + random.Random(f"{seed}{sql}").choice(between) for sql in shuffled)
    found = [statement.sql for statement in split(text).statements]
    assert found == shuffled
