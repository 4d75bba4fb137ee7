"""How much of a table or an index is unused, counted and not estimated: by the extension pgstattuple.

Source: PostgreSQL manual, "pgstattuple". Its functions may be called by ``pg_stat_scan_tables``, and so by
``pg_monitor``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import sql

from dbplatform.errors import UsageError
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation


class NoSuchRelation(UsageError):
    """There is no table, materialized view or B-tree index {relation}."""


class ExtensionMissing(UsageError):
    """The extension {extension} is not in this database."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bloat:
    """What of a relation is unused: free room and dead rows of a table, room in the leaves of an index, and
    pages that were deleted from it."""

    relation: str
    kind: str
    bytes: int
    unused_bytes: int
    dead_rows: int | None

    @property
    def ratio(self) -> float:
        """The share that is unused."""
        return self.unused_bytes / self.bytes if self.bytes else 0.0

    def as_json(self) -> dict[str, Any]:
        """One entry of ``exact``."""
        return {
            "relation": self.relation,
            "kind": self.kind,
            "bytes": self.bytes,
            "unused_bytes": self.unused_bytes,
            "ratio": self.ratio,
            "dead_rows": self.dead_rows,
        }


_KIND = """
    select c.relkind, a.amname, (select n.nspname from pg_extension e join pg_namespace n on n.oid = e.extnamespace
                                 where e.extname = 'pgstattuple')
    from pg_class c left join pg_am a on a.oid = c.relam where c.oid = to_regclass(%s)
"""


def measure(connection: AutocommitConnection, relation: Relation) -> Bloat:
    """Count one table (all-visible pages by their free room, the others row by row) or B-tree index (all pages).

    Reads it; lock: ACCESS SHARE while it does. Raises ``NoSuchRelation`` and ``ExtensionMissing``.
    """
    row = connection.execute(_KIND, (str(relation),)).fetchone()
    if row is None or not (row[0] in ("r", "m") or (row[0] == "i" and row[1] == "btree")):
        raise NoSuchRelation(relation=relation)
    kind, _, schema = row
    if schema is None:
        raise ExtensionMissing(extension="pgstattuple", hint="CREATE EXTENSION pgstattuple;")
    function = "pgstatindex" if kind == "i" else "pgstattuple_approx"
    columns = (
        "index_size, greatest(index_size - current_setting('block_size')::int * (1 + internal_pages + leaf_pages "
        "* coalesce(nullif(avg_leaf_density, 'NaN'), 0) / 100), 0)::bigint, null"
        if kind == "i"
        else "table_len, approx_free_space::bigint + dead_tuple_len, dead_tuple_count"
    )
    asked = sql.SQL("select {} from {}.{}(%s::regclass)").format(
        sql.SQL(columns), sql.Identifier(schema), sql.Identifier(function)
    )
    found = connection.execute(asked, (str(relation),)).fetchone()
    assert found is not None
    size, unused, dead = found
    return Bloat(
        relation=str(relation),
        kind="index" if kind == "i" else "table",
        bytes=size,
        unused_bytes=unused,
        dead_rows=dead,
    )
