"""A fleet for the benchmark: declarations as people write them, and a real database behind each."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import make_conninfo

TABLES, PARTITIONED = 15, 3
_TEMPLATE = "fleet_template"
_HEAD = """\
type: dbplatform.ManagedDatabase
attributes:
  name: {name}
  description: One of many databases of the same kind, as a product with a database for each customer has them.
  owners: ["team:{team}"]
  connection: {{url_env: FLEET_{upper}_URL, environment: staging}}
  migrations: {{directory: ../../migrations}}
  partitioned_tables:
{partitioned}
  archives:
    - {{name: old_rows, table: public.t01, column: at, older_than: 12 months}}
  backups:
    logical: {{schedule: "0 2 * * *", jobs: 2}}
    retain: {{daily: 7, weekly: 4, monthly: 12}}
    drill: {{schedule: "0 5 * * 0"}}
  quality:
{checked}
  thresholds:
    - {{metric: cache_hit_ratio, warn: "< 0.95", critical: "< 0.90", for: 5m}}
    - {{metric: connections_used_ratio, warn: "> 0.8"}}
  on_breach: {{dead_tuple_ratio: maintenance/vacuum}}
  maintenance: {{daily: "0 2 * * *", weekly: "0 3 * * 0", window: "22:00-05:00"}}
  freeze:
    - {{from: 2029-12-20, to: 2030-01-03, reason: "year end"}}
"""
_PARTITIONED = "    - {{table: public.{table}, column: at, interval: 1 month, premake: 4, retain: 24 months}}"
_CHECKED = """\
    - table: public.{table}
      checks:
        - not_null: email
        - unique: [id, at]
        - matches: {{column: email, regex: "^[^@]+@[^@]+$", severity: warn}}
        - range: {{column: amount, min: 0, max: 100000}}
        - row_count: {{min: 1}}
"""


def names(number: int) -> list[str]:
    """``c000`` and so on."""
    return [f"c{one:03}" for one in range(number)]


def declare(folder: Path, number: int) -> None:
    """Write a project of so many declarations, which share one folder of migrations."""
    migrations = folder / "migrations"
    migrations.mkdir(parents=True)
    (migrations / "V1__tables.sql").write_text(_tables())
    tables = [f"t{one:02}" for one in range(1, TABLES + 1)]
    for one, name in enumerate(names(number)):
        file = folder / "defs" / name / "defs.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(
            _HEAD.format(
                name=name,
                upper=name.upper(),
                team=f"team{one % 10}",
                partitioned="\n".join(_PARTITIONED.format(table=table) for table in tables[:PARTITIONED]),
                checked="".join(_CHECKED.format(table=table) for table in tables).rstrip(),
            )
        )


def _tables() -> str:
    columns = "id bigint not null, at timestamptz not null default now(), email text, amount numeric"
    statements = []
    for one in range(1, TABLES + 1):
        by_range = " partition by range (at)" if one <= PARTITIONED else ""
        statements.append(f"create table t{one:02} ({columns}, primary key (id, at)){by_range};")
        statements.append(f"create index on t{one:02} (email);")
    return "\n".join(statements) + "\n"


def urls(server_url: str, number: int) -> dict[str, str]:
    """The variables that the declarations name."""
    return {f"FLEET_{name.upper()}_URL": make_conninfo(server_url, dbname=name) for name in names(number)}


def make_template(server_url: str) -> None:
    """The database that the others are copies of: every table with 200 rows."""
    _create(server_url, _TEMPLATE, "template1")
    with psycopg.connect(make_conninfo(server_url, dbname=_TEMPLATE), autocommit=True) as connection:
        connection.execute(_tables().encode())
        for one in range(1, TABLES + 1):
            table = sql.Identifier(f"t{one:02}")
            if one <= PARTITIONED:
                connection.execute(sql.SQL("create table {} partition of {} default").format(
                    sql.Identifier(f"t{one:02}_default"), table
                ))  # fmt: skip
            connection.execute(
                sql.SQL(
                    "insert into {} (id, email, amount) select g, 'a' || g || '@example.com', g from "
                    "generate_series(1, 200) g"
                ).format(table)
            )
        connection.execute("vacuum (analyze)")


def make_databases(server_url: str, number: int) -> None:
    """Copies of the template, for those names that have none yet."""
    with psycopg.connect(server_url) as connection:
        there = {row[0] for row in connection.execute("select datname from pg_database")}
    for name in names(number):
        if name not in there:
            _create(server_url, name, _TEMPLATE)


def make_empty(server_url: str, name: str) -> str:
    """An empty database of the platform's own; its URL."""
    _create(server_url, name, "template1")
    return make_conninfo(server_url, dbname=name)


def _create(server_url: str, name: str, template: str) -> None:
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(
            sql.SQL("create database {} template {} strategy file_copy").format(
                sql.Identifier(name), sql.Identifier(template)
            )
        )
