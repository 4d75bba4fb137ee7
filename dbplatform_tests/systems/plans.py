"""How PostgreSQL would answer a query if the tables of the made-up data were large: by which indexes, sorted or not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import psycopg

from dbplatform.declaration.database import Database

# An index of a partition counts as that of its table.
_OF_PARTITIONS = """
    select c.relname, p.relname from pg_inherits i
    join pg_class c on c.oid = i.inhrelid and c.relkind = 'i' join pg_class p on p.oid = i.inhparent
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a plan consists of."""

    indexes: frozenset[str]
    nodes: frozenset[str]


def benchmark(database: Database, name: str, session: psycopg.Connection[Any]) -> tuple[str, dict[str, Any]]:
    """A declared query with the first value of each parameter."""
    assert database.benchmarks is not None
    [query] = [one for one in database.benchmarks.queries if one.name == name]
    assert query.sql is not None
    values = {}
    for parameter, drawn in query.params.items():
        row = session.execute(drawn.encode()).fetchone()
        assert row is not None
        values[parameter] = row[0]
    return re.sub(r"(?<![:\w]):(\w+)", r"%(\1)s", query.sql), values


def planned(
    session: psycopg.Connection[Any], query: str, values: Mapping[str, Any] | None = None, *, in_order: bool = False
) -> Plan:
    """The plan where reading a whole table is the last resort; ``in_order``: where sorting is, too."""
    session.execute("set local enable_seqscan = off")
    for setting in ("enable_sort", "enable_bitmapscan"):
        session.execute("select set_config(%s, %s, true)", (setting, "off" if in_order else "on"))
    row = psycopg.ClientCursor(session).execute(f"explain (format json) {query}".encode(), values).fetchone()
    assert row is not None
    parents = dict(session.execute(_OF_PARTITIONS).fetchall())
    nodes = list(_nodes(row[0][0]["Plan"]))
    named = [node["Index Name"] for node in nodes if "Index Name" in node]
    return Plan(
        indexes=frozenset(parents.get(name, name) for name in named),
        nodes=frozenset(node["Node Type"] for node in nodes),
    )


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for below in node.get("Plans", ()):
        yield from _nodes(below)
