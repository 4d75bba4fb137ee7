"""What a time hangs on besides its statement: server, settings, schema, rows; and whether two runs can be compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dbplatform.postgres.connection import AnyConnection

#: So much more or fewer rows are other rows.
_OTHER_ROWS = 0.1

_SERVER = """
    select (select system_identifier from pg_control_system())::text, current_setting('server_version'),
           pg_is_in_recovery()
"""
_SETTINGS = """
    select name, current_setting(name) from pg_settings
    where category like 'Query Tuning%' or category like 'Resource Usage / Memory%'
       or name in ('jit', 'max_parallel_workers', 'max_parallel_workers_per_gather', 'max_worker_processes',
                   'effective_io_concurrency', 'fsync', 'synchronous_commit', 'full_page_writes', 'plan_cache_mode')
"""
# Of a partitioned table counted with its partitions, which come and go by the calendar.
_SCHEMA = """
    with mine as (
        select c.oid, c.relname, n.nspname, c.relkind, c.reltuples, c.relispartition
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast', 'dbplatform')
          and n.nspname !~ '^pg_temp'
    ), described as (
        select format('%s.%s %s %s', m.nspname, m.relname, a.attname, format_type(a.atttypid, a.atttypmod)) as words
        from mine m join pg_attribute a on a.attrelid = m.oid and a.attnum > 0 and not a.attisdropped
        where m.relkind in ('r', 'p', 'v', 'm') and not m.relispartition
        union all
        select pg_get_indexdef(i.indexrelid) from mine m join pg_index i on i.indrelid = m.oid
        where not m.relispartition
        union all
        select format('%s.%s %s', m.nspname, m.relname, pg_get_viewdef(m.oid)) from mine m where m.relkind in ('v', 'm')
    )
    select md5(string_agg(words, E'\\n' order by words)) from described
"""
_ROWS = """
    select format('%I.%I', n.nspname, c.relname),
           case when c.relkind = 'p' then (
               select sum(greatest(l.reltuples, 0)) from pg_partition_tree(c.oid) t join pg_class l on l.oid = t.relid
               where t.isleaf)
           else greatest(c.reltuples, 0) end::bigint
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and not c.relispartition
      and n.nspname not in ('pg_catalog', 'information_schema', 'dbplatform') and n.nspname !~ '^pg_'
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """Where a run was. ``rows`` are the planner's estimates, by table."""

    system: str
    version: str
    place: str
    """``primary``, ``replica``, or ``copy``: one restored from a backup, for what writes."""
    settings: Mapping[str, str]
    schema: str
    rows: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """For the ledger and ``--json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Surroundings:
        """What ``as_json`` gave."""
        return cls(**document)


def read_surroundings(connection: AnyConnection) -> Surroundings:
    """Read them from the catalog: four statements, no lock."""
    server = connection.execute(_SERVER).fetchone()
    schema = connection.execute(_SCHEMA).fetchone()
    assert server is not None
    assert schema is not None
    return Surroundings(
        system=server[0],
        version=server[1],
        place="replica" if server[2] else "primary",
        settings=dict(sorted(connection.execute(_SETTINGS).fetchall())),
        schema=schema[0] or "",
        rows=dict(sorted(connection.execute(_ROWS).fetchall())),
    )


def obstacles(then: Surroundings, now: Surroundings) -> tuple[str, ...]:
    """Why the times of two runs say nothing about each other, a part of a sentence each. Pure."""
    found = []
    if then.system != now.system:
        found.append("it was measured on another server")
    elif then.version.split(".")[0] != now.version.split(".")[0]:
        found.append(f"the server ran PostgreSQL {then.version} and now {now.version}")
    if then.place != now.place:
        found.append(f"it was measured on the {then.place}, now on the {now.place}")
    return tuple(found)


def changes(then: Surroundings, now: Surroundings) -> tuple[str, ...]:
    """What else is other than it was, and may be why times are, a sentence each. Pure."""
    found = []
    if then.version != now.version:
        found.append(f"PostgreSQL was {then.version}, and is {now.version}")
    for name in sorted(then.settings.keys() & now.settings.keys()):
        if then.settings[name] != now.settings[name]:
            found.append(f"{name} was {then.settings[name]}, and is {now.settings[name]}")
    if then.schema != now.schema:
        found.append("the schema is another one")
    for table in sorted(then.rows.keys() & now.rows.keys()):
        before, after = then.rows[table], now.rows[table]
        if abs(after - before) > _OTHER_ROWS * max(before, 1):
            found.append(f"{table} had about {before:,} rows, and has {after:,}")
    return tuple(found)
