"""Tables and sequences: autovacuum that waits too long on large tables, bloat, sequences near their end.

Source: PostgreSQL manual, "The Autovacuum Daemon", "Routine Reindexing", "CREATE SEQUENCE".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from dbplatform.advice.actions import Action
from dbplatform.advice.catalog import Catalog, Table
from dbplatform.advice.model import Advice
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.words import CONCURRENTLY, manual, size_words
from dbplatform.postgres.identifiers import Relation

_SCALE, _BASE = "autovacuum_vacuum_scale_factor", "autovacuum_vacuum_threshold"
#: Autovacuum of a large table should come at about so many dead rows per row that it has.
_WANTED_SCALE, _WANTED_BASE = "0.02", "1000"
#: A table of which so small a share was changed since the statistics began needs nothing.
_LEAST_CHANGED = 0.05
_ALTER = "SHARE UPDATE EXCLUSIVE on the table for a moment: reads and writes go on"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bloated:
    """A table or index that is larger than its rows need, by the newest metrics."""

    kind: Literal["table", "index"]
    relation: Relation
    unused_bytes: float
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceUse:
    """How far a sequence has come towards its end, by the newest metrics."""

    name: str
    used: float
    last: str


def autovacuum_settings(catalog: Catalog, policy: AdvicePolicy, defaults: Mapping[str, float]) -> Iterator[Advice]:
    """Settings for each large table whose dead rows wait for long. ``defaults``: the server's settings. Pure."""
    if catalog.in_recovery:
        return
    for table in catalog.tables.values():
        if table.partitioned or table.rows < policy.large_table_rows:
            continue
        changed = table.updated + table.deleted
        scale = float(table.options.get(_SCALE, defaults[_SCALE]))
        threshold = float(table.options.get(_BASE, defaults[_BASE])) + scale * table.rows
        wanted = float(_WANTED_BASE) + float(_WANTED_SCALE) * table.rows
        if threshold <= 2 * wanted or changed < _LEAST_CHANGED * table.rows:
            continue
        yield _autovacuum(catalog, table, threshold, wanted, changed)


def _autovacuum(catalog: Catalog, table: Table, threshold: float, wanted: float, changed: float) -> Advice:
    before = {name: table.options.get(name) for name in (_SCALE, _BASE)}
    disabled = table.options.get("autovacuum_enabled") in ("false", "off", "0")
    return Advice(
        database=catalog.database,
        kind="autovacuum",
        subject=str(table.relation),
        severity="warning" if table.dead > wanted else "info",
        reason=f"Autovacuum waits for {threshold:,.0f} dead rows in {table.relation}, which has {table.dead:,.0f} now "
        f"and of whose {table.rows:,.0f} rows {changed:,.0f} were changed: with these it comes at {wanted:,.0f}."
        + (" Autovacuum is off for it." if disabled else ""),
        evidence={"rows": table.rows, "dead rows": table.dead, "changed rows": changed, "threshold": threshold},
        lock=_ALTER,
        cost="shorter vacuums, more often",
        confidence="certain",
        document=manual("routine-vacuuming.html#AUTOVACUUM"),
        action=Action(
            verb="table_options",
            schema=table.schema,
            name=table.name,
            values={_SCALE: _WANTED_SCALE, _BASE: _WANTED_BASE},
        ),
        undo=Action(verb="table_options", schema=table.schema, name=table.name, values=_as_before(before)),
    )


def _as_before(before: Mapping[str, str | None]) -> dict[str, str | None]:
    """What was set is set again; where nothing was, all is reset. One that alone was set gets the other's default."""
    if all(value is None for value in before.values()):
        return dict(before)
    defaults = {_SCALE: "0.2", _BASE: "50"}
    return {name: value if value is not None else defaults[name] for name, value in before.items()}


def bloat(catalog: Catalog, found: Iterable[Bloated]) -> Iterator[Advice]:
    """An index that is bloated is rebuilt; a table is for a person to judge. Pure."""
    for one in found:
        of_index = one.kind == "index"
        words = f"pg_repack --table {one.relation}, or in a quiet hour VACUUM (FULL) {one.relation}"
        yield Advice(
            database=catalog.database,
            kind="bloat",
            subject=str(one.relation),
            severity="warning",
            reason=f"About {one.ratio:.0%} of the {one.kind} {one.relation}, {size_words(one.unused_bytes)}, hold "
            f"nothing (an estimate; counted by: dbplatform metrics {catalog.database} --exact {one.relation}).",
            evidence={"unused bytes": one.unused_bytes, "ratio": round(one.ratio, 3)},
            lock=CONCURRENTLY if of_index else "VACUUM FULL: ACCESS EXCLUSIVE on the table, for as long as it takes",
            cost="the index is built anew beside the old one" if of_index else "the table is written anew",
            confidence="estimated",
            document=manual("routine-reindex.html" if of_index else "routine-vacuuming.html#VACUUM-FOR-SPACE-RECOVERY"),
            action=Action(verb="reindex", schema=one.relation.schema, name=one.relation.name) if of_index else None,
            words="" if of_index else words,
        )


def sequences(catalog: Catalog, found: Iterable[SequenceUse]) -> Iterator[Advice]:
    """A sequence near its end wants a wider column, which is a migration. Pure."""
    for one in found:
        yield Advice(
            database=catalog.database,
            kind="sequence",
            subject=one.name,
            severity="warning",
            reason=f"The sequence {one.name} has come to {one.last}, {one.used:.0%} of the way to its end: then every "
            "insert that asks it fails.",
            evidence={"used": round(one.used, 4), "last": one.last},
            lock="ACCESS EXCLUSIVE while the table is rewritten (ALTER TYPE), or for moments beside a new column",
            cost="a column of 8 bytes in place of the smaller one",
            confidence="certain",
            document=manual("sql-createsequence.html"),
            words="Make the column bigint by a migration: a new column, filled by a trigger and in batches.",
        )
