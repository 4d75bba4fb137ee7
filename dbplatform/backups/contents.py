"""What is in a database at one snapshot: its user tables with their rows, its large objects, and where it comes from.

Everything here only reads; the same functions read the source and the restored copy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from psycopg import sql

from dbplatform.backups.holding import unhurried
from dbplatform.backups.manifest import Locale, Source, TableContent
from dbplatform.errors import LockNotAcquired
from dbplatform.postgres.catalog import count_and_hash
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection, SnapshotConnection
from dbplatform.postgres.identifiers import Relation

#: Under this name the large objects are counted and hashed like a table.
LARGE_OBJECTS = Relation("pg_catalog", "pg_largeobject")
_LOCKED_AT_ONCE = 200

# A partitioned table stands for its partitions, unless one of them is a foreign table, whose rows no dump holds: then
# each partition stands for itself. What an extension made belongs to the extension, except the configuration tables
# that it wants dumped whole.
_TABLES = """
    with candidate as (
        select c.oid, n.nspname, c.relname, c.relkind, c.relispartition,
               coalesce((select bool_or(l.relkind = 'f')
                         from pg_partition_tree(pg_partition_root(c.oid)) t join pg_class l on l.oid = t.relid),
                        false) as partly_foreign
        from pg_class c join pg_namespace n on n.oid = c.relnamespace
        where c.relkind in ('r', 'p') and c.relpersistence <> 't'
          and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
    )
    select nspname, relname from candidate c
    where case when partly_foreign then relkind = 'r' else not relispartition end
      and not exists (
          select from pg_depend d
          where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e'
            and not exists (
                select from pg_extension e, unnest(e.extconfig, e.extcondition) as configured(relation, condition)
                where e.oid = d.refobjid and relation = c.oid and condition = ''))
    order by nspname, relname
"""

# Pieces of 8 MB: a large object may be bigger than one value can be.
_LARGE_OBJECTS = """
    with recursive piece(oid, at, length, digest) as (
        select m.oid, 0::bigint, octet_length(b), md5(b)
        from pg_largeobject_metadata m, lo_get(m.oid, 0, 8388608) as b
        union all
        select p.oid, p.at + 8388608, octet_length(b), md5(b)
        from piece p, lo_get(p.oid, p.at + 8388608, 8388608) as b
        where p.length = 8388608
    )
    select count(*) filter (where at = 0),
           coalesce(sum(hashtextextended(concat_ws(':', oid, at, digest), 0)::numeric), 0),
           coalesce(sum(hashtextextended(concat_ws(':', oid, at, digest), 1)::numeric), 0)
    from piece
"""

_SOURCE = """
    select current_database(), d.oid, (select system_identifier::text from pg_control_system()),
           current_setting('server_version'), current_setting('server_version_num')::int / 10000,
           pg_current_snapshot()::text,
           (case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end)::text,
           case when not pg_is_in_recovery()
                then ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::integer end,
           transaction_timestamp(), pg_database_size(d.oid), pg_get_userbyid(d.datdba),
           pg_encoding_to_char(d.encoding), to_jsonb(d)
    from pg_database d where d.datname = current_database()
"""

_HOLDER = """
    select format('%I.%I', n.nspname, c.relname), l.pid, a.application_name,
           extract(epoch from now() - a.xact_start)::int
    from pg_locks l join pg_class c on c.oid = l.relation join pg_namespace n on n.oid = c.relnamespace
    left join pg_stat_activity a using (pid)
    where l.mode = 'AccessExclusiveLock' and l.locktype = 'relation' and l.pid <> pg_backend_pid()
      and l.database = (select oid from pg_database where datname = current_database())
      and c.relkind in ('r', 'p', 'm', 'S')
    order by l.granted desc, a.xact_start limit 1
"""

_EXTENSIONS = "select extname, extversion from pg_extension where extname <> 'plpgsql' order by 1"

_SETTINGS = """
    select split_part(s, '=', 1), substr(s, strpos(s, '=') + 1)
    from pg_db_role_setting r, unnest(r.setconfig) s
    where r.setrole = 0 and r.setdatabase = (select oid from pg_database where datname = current_database())
"""

# pg_shdepend leaves out the role that initdb made; FirstNormalObjectId is 16384.
_ROLES = """
    select r.rolname from pg_shdepend s join pg_roles r on r.oid = s.refobjid
    where s.refclassid = 'pg_authid'::regclass
      and s.dbid = (select oid from pg_database where datname = current_database())
    union
    select pg_get_userbyid(relowner) from pg_class where oid >= 16384
    union
    select pg_get_userbyid(proowner) from pg_proc where oid >= 16384
    union
    select pg_get_userbyid(nspowner) from pg_namespace where oid >= 16384
    order by 1
"""

_PROVIDERS = {"c": "libc", "i": "icu", "b": "builtin"}


def ready_to_read(connection: AnyConnection) -> None:
    """Make the session read whole tables: without a time limit, and with an error where row security would hide rows.

    The form of money does not depend on the server's locale.
    """
    unhurried(connection)
    connection.execute("select set_config('row_security', 'off', false), set_config('lc_monetary', 'C', false)")


def read_source(connection: SnapshotConnection) -> Source:
    """Which database this is, and which moment; needs no rights beyond CONNECT."""
    row = connection.execute(_SOURCE).fetchone()
    assert row is not None
    name, oid, system, version, major, xids, lsn, timeline, taken_at, size, owner, encoding, catalog_row = row
    extensions: dict[str, str] = dict(connection.execute(_EXTENSIONS).fetchall())
    return Source(
        database=name,
        database_oid=oid,
        system_identifier=system,
        server_version=version,
        server_major=major,
        snapshot=xids,
        wal_lsn=lsn,
        timeline_id=timeline,
        taken_at=taken_at,
        database_bytes=size,
        owner=owner,
        locale=_locale(encoding, catalog_row),
        settings=dict(connection.execute(_SETTINGS).fetchall()),
        extensions=tuple(extensions),
        extension_versions=extensions,
        roles=_names(connection, _ROLES),
    )


def list_tables(connection: AnyConnection) -> tuple[Relation, ...]:
    """The tables whose rows a dump holds: every partition tree once, by its root."""
    return tuple(Relation(schema, name) for schema, name in connection.execute(_TABLES).fetchall())


def lock_tables(connection: SnapshotConnection, tables: Sequence[Relation]) -> None:
    """Hold ACCESS SHARE until the snapshot ends: no TRUNCATE or ALTER TABLE comes between counting and dumping.

    Raises psycopg's ``LockNotAvailable`` after the session's ``lock_timeout``; then ``held_against`` says by whom.
    """
    for start in range(0, len(tables), _LOCKED_AT_ONCE):
        names = sql.SQL(", ").join(table.identifier for table in tables[start : start + _LOCKED_AT_ONCE])
        connection.execute(sql.SQL("lock table {} in access share mode").format(names))


def held_against(connection: AutocommitConnection, *, waited_ms: int) -> LockNotAcquired:
    """The error of who cannot read a table: which one, and the session that lets nobody read it, where it still does.

    Whoever has asked for such a lock, and waits for it, keeps everybody behind it away, too.
    """
    row = connection.execute(_HOLDER).fetchone()
    if row is None:
        return LockNotAcquired(
            lock="a lock on a table", waited_ms=waited_ms, hint="It has just been released: run the backup again."
        )
    table, pid, application, seconds = row
    who = f"{application or 'no application name'}, in its transaction for {seconds or 0} s"
    return LockNotAcquired(
        lock=f"{table} so that nobody reads it (ACCESS EXCLUSIVE)",
        waited_ms=waited_ms,
        hint=f"Backend {pid} ({who}) does, or waits to: wait for it, or end it; then run the backup again.",
    )


def has_large_objects(connection: AnyConnection) -> bool:
    """Whether there is at least one."""
    return connection.execute("select from pg_largeobject_metadata limit 1").fetchone() is not None


def read_content(connection: AnyConnection, table: Relation) -> TableContent:
    """Count and hash one table, or the large objects; reads all of it."""
    rows, digest = _large_objects(connection) if table == LARGE_OBJECTS else count_and_hash(connection, table)
    return TableContent(table=str(table), rows=rows, hash=digest)


def everything(connection: AnyConnection) -> tuple[Relation, ...]:
    """All that ``read_content`` is to be asked for: the tables, and the large objects where there are any."""
    tables = list_tables(connection)
    return (*tables, LARGE_OBJECTS) if has_large_objects(connection) else tables


def _large_objects(connection: AnyConnection) -> tuple[int, str]:
    row = connection.execute(_LARGE_OBJECTS).fetchone()
    assert row is not None
    return int(row[0]), hashlib.sha256(repr(row).encode()).hexdigest()[:32]


def _locale(encoding: str, row: dict[str, Any]) -> Locale:
    """From ``pg_database``, whose columns differ: no provider before 15, ``daticulocale`` until 16."""
    return Locale.model_validate(
        {
            "encoding": encoding,
            "provider": _PROVIDERS[row.get("datlocprovider", "c")],
            "collate": row["datcollate"],
            "ctype": row["datctype"],
            "locale": row.get("datlocale") or row.get("daticulocale"),
            "rules": row.get("daticurules"),
        }
    )


def _names(connection: AnyConnection, query: str) -> tuple[str, ...]:
    return tuple(name for (name,) in connection.execute(query.encode()).fetchall())
