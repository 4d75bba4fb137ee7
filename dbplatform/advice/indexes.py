"""Indexes that cost more than they give: invalid, duplicate, unused and overlapping ones.

Each index is advised once, for the first of these reasons. Never dropped is one that a constraint, replication or
CLUSTER needs, one with a predicate, one with expressions (ANALYZE keeps statistics for it), one of a partitioned table,
and the only one that serves a foreign key. None covers for another while it is advised to go itself.
Source: PostgreSQL manual, "Examining Index Usage", "Building Indexes Concurrently", "Multicolumn Indexes".
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from dbplatform.advice.actions import Action
from dbplatform.advice.catalog import Catalog, Index, ReplicaUse
from dbplatform.advice.model import Advice, Kind
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.words import CONCURRENTLY, days_words, manual, size_words

#: What REINDEX CONCURRENTLY leaves behind when it is killed.
_DEBRIS = re.compile(r"_cc(new|old)\d*$")


def needless_indexes(
    catalog: Catalog, policy: AdvicePolicy, replica: ReplicaUse | None, unexamined: dict[Kind, str]
) -> list[Advice]:
    """Every advice to drop or rebuild an index. Pure; adds to ``unexamined`` what the statistics are too young for."""
    leaving: set[int] = set()
    found = [*_invalid(catalog, leaving), *_duplicates(catalog, leaving)]
    needed = policy.unused_after.timedelta.total_seconds()
    youngest = min(catalog.counting_s, replica.counting_s if replica is not None else catalog.counting_s)
    if catalog.in_recovery:
        unexamined["unused_index"] = "a standby counts only its own reads: ask the primary"
    elif youngest < needed:
        unexamined["unused_index"] = (
            f"the statistics reach back {days_words(youngest)}; {days_words(needed)} are needed (advice.unused_after)"
        )
    if "unused_index" not in unexamined:
        found += _unused(catalog, policy, replica, leaving)
    return [*found, *_overlapping(catalog, leaving)]


def _invalid(catalog: Catalog, leaving: set[int]) -> Iterator[Advice]:
    building = {index.table_oid for index in catalog.indexes if index.builder is not None}
    for index in catalog.indexes:
        if index.valid or index.partitioned or index.table_oid in building:
            continue
        leaving.add(index.oid)
        debris = _DEBRIS.search(index.name) is not None and not index.constraint
        yield _advice(
            catalog,
            index,
            "invalid_index",
            reason=f"{index.relation} is invalid: no statement reads by it, and every write still feeds it. "
            + ("A REINDEX that was ended left it." if debris else "Its building was ended, or failed."),
            action=_drop(index) if debris else Action(verb="reindex", schema=index.schema, name=index.name),
            undoable=False,
            cost=f"frees {size_words(index.bytes)}" if debris else "as long as building it; the table is read twice",
            document="sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY",
        )


def _duplicates(catalog: Catalog, leaving: set[int]) -> Iterator[Advice]:
    alike: dict[object, list[Index]] = {}
    for index in catalog.indexes:
        if index.valid and not index.partitioned:
            key = (index.table_oid, index.method, repr(index.part(len(index.keys))), tuple(sorted(index.included)))
            alike.setdefault((*key, index.expressions, index.predicate), []).append(index)
    for same in alike.values():
        keep, *others = sorted(same, key=lambda one: (not one.protected, not one.unique, -one.scans, one.oid))
        for index in others:
            if index.protected or index.partial or (index.unique and not keep.unique):
                continue
            leaving.add(index.oid)
            yield _advice(
                catalog,
                index,
                "duplicate_index",
                reason=f"{index.relation} and {keep.relation} hold the same columns in the same order: every write of "
                f"{index.owner} feeds both, and one would do.",
                more={"kept": str(keep.relation)},
                document="indexes-examine.html",
            )


def _unused(catalog: Catalog, policy: AdvicePolicy, replica: ReplicaUse | None, leaving: set[int]) -> Iterator[Advice]:
    age = policy.unused_after.timedelta.total_seconds()
    for index in catalog.indexes:
        if (
            index.oid in leaving
            or not index.plain
            or index.protected
            or index.unique
            or index.scans > 0
            or index.bytes < policy.unused_min_size
            or (index.age_s is not None and index.age_s < age)
            or (replica is not None and str(index.relation) in replica.used)
            or _serves_a_key_alone(catalog, index, leaving)
        ):
            continue
        leaving.add(index.oid)
        asked = "" if replica is None else ", here and on the replica"
        yield _advice(
            catalog,
            index,
            "unused_index",
            reason=f"Nothing was read by {index.relation} in {days_words(catalog.counting_s)}{asked}; it has "
            f"{size_words(index.bytes)}, and every write of {index.owner} feeds it.",
            more={"replica asked": replica is not None},
            document="monitoring-stats.html#MONITORING-PG-STAT-ALL-INDEXES-VIEW",
        )


def _overlapping(catalog: Catalog, leaving: set[int]) -> Iterator[Advice]:
    for index in catalog.indexes:
        if index.oid in leaving or not index.plain or index.protected or index.unique or index.method != "btree":
            continue
        wider = [other for other in catalog.indexes_of(index.table_oid) if _covers(other, index, leaving)]
        if not wider:
            continue
        cover = min(wider, key=lambda one: (one.bytes, one.oid))
        leaving.add(index.oid)
        yield _advice(
            catalog,
            index,
            "overlapping_index",
            reason=f"{cover.relation} begins with the columns of {index.relation} ({', '.join(index.columns)}), and "
            "can be read in its place.",
            more={"kept": str(cover.relation), "kept bytes": cover.bytes},
            document="indexes-multicolumn.html",
            severity="info",
        )


def _covers(other: Index, index: Index, leaving: set[int]) -> bool:
    return (
        other.oid != index.oid
        and other.oid not in leaving
        and other.plain
        and other.method == "btree"
        and len(other.keys) > len(index.keys)
        and other.part(len(index.keys)) == index.part(len(index.keys))
        and set(index.included) <= {*other.keys, *other.included}
        # A much wider one costs every read more than the narrow one costs the writes.
        and other.bytes <= 3 * max(index.bytes, 1 << 20)
    )


def _serves_a_key_alone(catalog: Catalog, index: Index, leaving: set[int]) -> bool:
    keys = [key.keys for key in catalog.foreign_keys if key.table_oid == index.table_oid]
    others = [one for one in catalog.indexes_of(index.table_oid) if one.oid != index.oid and one.oid not in leaving]
    return any(serves(index, key) and not any(serves(other, key) for other in others) for key in keys)


def serves(index: Index, keys: list[int]) -> bool:
    """Whether rows can be looked up by these columns in the index: they are its first ones, in any order."""
    return index.plain and index.method == "btree" and set(index.keys[: len(keys)]) == set(keys)


def _drop(index: Index) -> Action:
    return Action(verb="drop_index", schema=index.schema, name=index.name)


def _advice(
    catalog: Catalog,
    index: Index,
    kind: Kind,
    *,
    reason: str,
    document: str,
    more: dict[str, object] | None = None,
    action: Action | None = None,
    undoable: bool = True,
    cost: str = "",
    severity: str = "warning",
) -> Advice:
    table = catalog.tables.get(index.table_oid)
    again = Action(verb="recreate_index", schema=index.schema, name=index.name, definition=index.definition)
    return Advice(
        database=catalog.database,
        kind=kind,
        subject=str(index.relation),
        severity="info" if severity == "info" else "warning",
        reason=reason,
        evidence={
            "table": str(index.owner),
            "bytes": index.bytes,
            "scans": index.scans,
            "writes": table.index_writes if table is not None else None,
            "statistics reach back seconds": round(catalog.counting_s),
            **(more or {}),
        },
        lock=CONCURRENTLY,
        cost=cost or f"frees {size_words(index.bytes)}, and an entry for each write",
        confidence="certain",
        document=manual(document),
        action=action or _drop(index),
        undo=again if undoable else None,
        table=(index.table_schema, index.table),
    )
