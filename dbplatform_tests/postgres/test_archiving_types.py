"""Every kind of value comes back exactly; what cannot is refused by name before the start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from psycopg import sql

from dbplatform.archiving import errors
from dbplatform.archiving.plan import plan_archive
from dbplatform.archiving.proof import widened
from dbplatform.archiving.storage import REFUSED
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform_tests.postgres.archiving_support import NOW, archive, ask, fill, only, policy, restore

_ROWS = r"""
    create type mood as enum ('sad', 'it''s, "ok"');
    create type pair as (a int, b text[]);
    create domain positive as int check (value > 0);
    create domain moment as timestamptz;
    create type halves as range (subtype = float8);
    create table "We ird %s ""t" (
        "id %s" int, "place" text, at timestamptz, primary key ("id %s", "place"),
        yes bool, i2 int2, i8 int8, f4 float4, f8 float8, n numeric, n2 numeric(10, 3), m money,
        v varchar(20), c char(5), n_ame name, ch "char", b bytea, d date, ts timestamp, ts3 timestamptz(3),
        t time, ttz timetz, iv interval, u uuid, j json, jb jsonb, ip inet, net cidr, mac macaddr, mac8 macaddr8,
        bits bit(5), vbits varbit, pt point, ln line, bx box, pth path, pl polygon, cr circle, ls lseg,
        tv tsvector, tq tsquery, x xml, lsn pg_lsn, o oid, xi xid, jp jsonpath, mo mood, pr pair, po positive,
        mt moment, r int4range, nr numrange, tr tstzrange, hr halves, mr int4multirange,
        a_i int[], a_t text[], a_n numeric[], a_m mood[], a_p pair[], a_ts timestamptz[], a_b bytea[],
        dr daterange, i8r int8range, tsr tsrange, dmr datemultirange, i8mr int8multirange, nmr nummultirange,
        tsmr tsmultirange, tzmr tstzmultirange, ci cid, ti tid, x8 xid8, snap pg_snapshot, tsnap txid_snapshot,
        rc refcursor,
        gen text generated always as (upper(v)) stored
    );
    insert into "We ird %s ""t" values
    (1, E'multi\r\nline\n\\.\n"quoted", comma', '2025-01-01 12:34:56.789012+00',
     true, -32768, 9223372036854775807, 'NaN', '-Infinity', 'NaN', 1.5, 12.34,
     '', 'ab', 'a name', 'c', '\x00ff0a225c', '2025-02-28', '2025-01-01 00:00:00.000001', '2025-01-01 00:00:00.123',
     '24:00', '12:00:00.5+05:30', '1 year 2 mons -3 days 04:05:06.789', gen_random_uuid(), '{"a" : 1,  "a":2}',
     '{"b": [1, null, 1.10]}', '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05',
     B'10101', B'1', '(1.1,-0)', '{1,2,3}', '(1,1),(0,0)', '[(0,0),(1,1)]', '((0,0),(1,1),(1,0))', '<(0,0),1e-300>',
     '[(0,0),(1,1)]', 'a:1 fat:2B', 'fat & (rat | cat)', '<a>x &amp; y</a>', '16/B374D848', 4294967295, '42',
     '$.a[*] ? (@ > 1)', 'it''s, "ok"', row(1, array['x', null, '', 'NULL']), 7, 'infinity', '[1,10)', '(,1.10]',
     '[2025-01-01,infinity)', '[0.1,0.30000000000000004)', '{[1,3),[5,9)}',
     '[0:2]={1,null,3}', array['', null, 'NULL', 'a"b', '{}'], array[1.0, 1.00, 'NaN', 'Infinity'],
     array['sad']::mood[], array[row(1, null)]::pair[], array['-infinity', '2025-01-01']::timestamptz[],
     array['\x00'::bytea],
     '[2024-02-29,infinity)', '(,9223372036854775807)', '[2025-01-01 00:00:00.000001,)', '{[2024-02-29,2024-03-01)}',
     '{[1,2),[3,4)}', '{(,1.10],(2,NaN)}', '{[2025-01-01,2025-01-02)}', '{[-infinity,2025-01-01),(2026-01-01,)}',
     '4294967295', '(4294967295,65535)', '18446744073709551615', '10:20:10,14,15', '10:20:10,14,15', 'a "cursor"');
    insert into "We ird %s ""t" values
    (2, 'extremes', '-infinity',
     false, 32767, -9223372036854775808, 3.4028235e38, 5e-324, '-Infinity', 'NaN', -0.01,
     ' x ', '', '', '', '', 'infinity', '4714-11-24 00:00:00 BC', '2025-01-01',
     '00:00', '00:00-15:59', '-178000000 years', null, 'null', 'null', '1.2.3.4', '::/0', null, null,
     B'00000', B'', null, null, null, null, null, null, null, '', '', '', '0/0', 0, '0', '$', 'sad', row(null, null),
     1, '2025-01-01', 'empty', 'empty', 'empty', 'empty', '{}',
     '{}', '{}', '{}', '{}', '{}', '{}', '{}',
     'empty', 'empty', 'empty', '{}', '{}', '{}', '{}', '{}', '0', '(0,1)', '0', '1:1:', '1:1:', '');
    insert into "We ird %s ""t" values
    (3, 'the year 12026', '2025-06-01', null, 0, 0, '-0', '-0', 1e-20, 0.000, 0, null, null, null, null, null,
     '0001-01-01 BC', '294276-12-31 23:59:59.999999', '9999-12-31 23:59:59.999+00');
    insert into "We ird %s ""t" values
    (4, E'tab\t\u00e9\U0001F600', '0001-01-01 00:00:00+00', null, null, null, 0.1, 0.1, 100, 1e6);
"""


def content(target: Target, table: Relation) -> str:
    with connect(target, work="look") as connection:
        return catalog.content_hash(connection, table)


def test_every_kind_of_value_comes_back_exactly(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, _ROWS)
    odd = Relation("public", 'We ird %s "t')
    before = content(database, odd)
    report = archive(database, ledger, tmp_path, policy(table=odd))
    assert (report.deleted, report.kept) == (4, {})
    restore(database, ledger, only(ledger).id)
    assert content(database, odd) == before
    stored = {c["name"]: c["storage"] for c in _metadata(ledger)["columns"]}
    assert (stored["at"], stored["ts"], stored["d"], stored["mt"]) == ("string", "string", "string", "string")
    assert (stored["ts3"], stored["f8"], stored["b"], stored["po"]) == ("timestamptz", "float64", "binary", "int32")


def test_ordinary_values_are_stored_as_parquet_has_them(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(
        database,
        "create table orders (id int primary key, at timestamptz, day date, price numeric(10,2), b bytea, f float8);"
        "insert into orders values (1, '2025-01-01 12:00+02', '2025-01-01', 1.50, '\\x0aff', 0.1),"
        " (2, '2025-01-01 12:00', null, null, null, null)",
    )
    archive(database, ledger, tmp_path)
    table = pq.read_table(only(ledger).location)
    assert {f.name: str(f.type) for f in table.schema} == {
        "id": "int32",
        "at": "timestamp[us, tz=UTC]",
        "day": "date32[day]",
        "price": "string",
        "b": "binary",
        "f": "double",
    }
    assert [row["price"] for row in table.to_pylist()] == ["1.50", None]
    assert pq.ParquetFile(only(ledger).location).metadata.row_group(0).column(0).compression == "ZSTD"


def test_the_file_says_by_itself_what_it_holds(database: Target, ledger: Ledger, tmp_path: Path) -> None:
    fill(database, "create table orders (id int primary key, at date); insert into orders values (1, '2025-01-01')")
    archive(database, ledger, tmp_path)
    entry, said = only(ledger), _metadata(ledger)
    assert (said["archive_id"], said["rows"], said["content_hash"]) == (str(entry.id), 1, entry.content_hash)
    assert said["key"] == ["id"]
    assert said["columns"][1] == {"name": "at", "type": "date", "storage": "date", "generated": False}
    assert {"database", "table", "cutoff", "snapshot", "backup_id", "exported_at", "format"} <= set(said)


def _metadata(ledger: Ledger) -> dict[str, Any]:
    return dict(json.loads(pq.ParquetFile(only(ledger).location).schema_arrow.metadata[b"dbplatform"]))


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("c regclass", "column c .* type regclass"),
        ("c regtype[]", r"type regtype\[\].*regtype"),
        ("c named", "type named.*regproc"),
        ("c aclitem", "aclitem"),
        ("c pg_node_tree", "cannot read it from text"),
        ("c gtsvector", "cannot read it from text"),
    ],
)
def test_a_type_that_does_not_survive_is_refused_by_name(database: Target, column: str, words: str) -> None:
    fill(
        database,
        "create type inner_named as (p regproc); create domain named as inner_named;"
        f"create table orders (id int primary key, at timestamptz, {column})",
    )
    with connect(database, work="test") as connection, pytest.raises(errors.CannotKeepType, match=words):
        plan_archive(connection, policy(), now=NOW)


def test_a_key_that_is_equal_but_written_otherwise_is_another_row(
    database: Target, ledger: Ledger, tmp_path: Path
) -> None:
    fill(
        database,
        "create table orders (id numeric primary key, at date);"
        "insert into orders values (1.0, '2025-01-01'), ('NaN', '2025-01-01')",
    )
    archive(database, ledger, tmp_path)
    fill(database, "insert into orders values (1.00, '2025-01-01')")
    with pytest.raises(errors.RestoreConflict):
        restore(database, ledger, only(ledger).id)
    assert ask(database, "select string_agg(id::text, ',') from orders") == "1.00"


@pytest.mark.parametrize(
    ("xmin", "next_id", "expected"),
    [
        (100, 200, 100),
        (4294967290, 2**32 + 5, 4294967290),
        (3, 2**32 + 5, 2**32 + 3),
        (3, 3 * 2**32 + 5, 3 * 2**32 + 3),
        (2**32 - 1, 3 * 2**32 + 5, 3 * 2**32 - 1),
        (2**31 + 7, 3 * 2**32 + 5, 2 * 2**32 + 2**31 + 7),
        # In doubt, the newer one: a round older would be taken for proven.
        (10, 3 * 2**32 + 5, 3 * 2**32 + 10),
    ],
)
def test_a_32_bit_xmin_is_widened_to_the_newest_id_that_it_can_mean(
    database: Target, xmin: int, next_id: int, expected: int
) -> None:
    with connect(database, work="test") as connection:
        statement = sql.SQL("select {}").format(widened(sql.Literal(xmin), sql.Literal(next_id)))
        assert connection.execute(statement).fetchone() == (expected,)


_ALL_TYPES = """
    select t.typname::text from pg_type t
    where t.typnamespace = 'pg_catalog'::regnamespace and t.typtype in ('b', 'r', 'm') and t.typcategory <> 'A'
"""
_TYPES_OF_ROWS = """
    select distinct t.typname::text from pg_attribute a join pg_type t on t.oid = a.atttypid
    where a.attrelid = (select oid from pg_class where relkind = 'r' and relname like 'We ird%') and a.attnum > 0
"""


def test_every_built_in_type_comes_back_or_is_refused(database: Target) -> None:
    """The rows above hold a value of each type that PostgreSQL has, save those that are refused by name."""
    fill(database, _ROWS)
    with connect(database, work="test") as connection:
        built_in = {name for (name,) in connection.execute(_ALL_TYPES).fetchall()}
        tried = {name for (name,) in connection.execute(_TYPES_OF_ROWS).fetchall()}
    assert built_in - tried == set(REFUSED) & built_in
    assert not tried & set(REFUSED)
