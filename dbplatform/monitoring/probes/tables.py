"""Tables and indexes: sizes, dead rows, what vacuum and ANALYZE owe, bloat, use."""

from __future__ import annotations

from typing import Literal

from dbplatform.monitoring.probes.collecting import (
    FIRST_COLLECTION,
    NO_STATISTICS,
    ON_STANDBY,
    Collecting,
    Probe,
    Row,
    one,
)
from dbplatform.postgres.connection import AutocommitConnection

DEAD_ROWS_MINIMUM = 10_000

_OWED = ("dead_tuple_ratio", "vacuum_due_tables", "vacuum_age_s", "analyze_due_tables", "analyze_age_s")
_SIZES = ("database_bytes", "database_growth", "tables_bytes")
_OF_INDEXES = ("indexes_bytes", "invalid_indexes", "unused_indexes", "index_hit_ratio", "index_use_ratio")


def _tables(connection: AutocommitConnection, into: Collecting) -> None:
    least, _ = into.bloat_bytes
    row = one(connection, "metrics_tables", {"bloat_bytes": least, "since": into.facts.counting_since})
    _sizes(row, into)
    _bloat("table", row, into)
    into.listed(row, "largest_tables", "dead_rows", "sequential_reads")
    if into.facts.in_recovery:
        into.nothing(ON_STANDBY, *_OWED)
    elif not into.facts.track_counts:
        into.unknown(NO_STATISTICS, *_OWED)
    else:
        into.count(row, "seq_scans")
        _dead_rows(row, into)
        _owed("vacuum", row, into)
        _owed("analyze", row, into)


def _sizes(row: Row, into: Collecting) -> None:
    size = row["database_bytes"]
    into.found("database_bytes", size)
    into.found("tables_bytes", row["bytes"], detail=f"{row['tables']:,} tables")
    before = into.previous.values.get("database_bytes") if into.previous else None
    seconds = (into.now - into.previous.at).total_seconds() if into.previous else 0
    if before is None or seconds <= 0:
        into.unknown(FIRST_COLLECTION, "database_growth")
    else:
        into.found("database_growth", (size - before.value) / seconds, sample=seconds)


def _dead_rows(row: Row, into: Collecting) -> None:
    if row["dead"] is None:
        into.found("dead_tuple_ratio", 0, sample=0, detail=f"no table has more than {DEAD_ROWS_MINIMUM:,} dead rows")
        return
    name, dead, ratio = row["dead"]
    detail = f"{name} has {float(dead):,.0f} dead rows"
    into.found("dead_tuple_ratio", ratio, sample=float(dead), labels={"table": name}, detail=detail)


def _owed(what: Literal["vacuum", "analyze"], row: Row, into: Collecting) -> None:
    into.found(f"{what}_due_tables", row[f"{what}_due"])
    if row[f"{what}_oldest"] is None:
        into.found(f"{what}_age_s", 0, sample=0, detail=f"no table is due for {what}")
        return
    name, rows, age = row[f"{what}_oldest"]
    words = "dead" if what == "vacuum" else "changed"
    detail = f"{name} has {float(rows):,.0f} {words} rows"
    into.found(f"{what}_age_s", max(0.0, float(age)), sample=float(rows), labels={"table": name}, detail=detail)


def _bloat(what: Literal["table", "index"], row: Row, into: Collecting) -> None:
    metric, hidden = f"{what}_bloat_ratio", row["not_estimated"]
    why = f"its columns' statistics cannot be read, or it was never analyzed: {hidden}"
    if hidden:
        of = hidden if what == "table" else "the table of each"
        into.missing.append(
            f"SELECT, to estimate the bloat of the {what} {hidden}: GRANT SELECT ON {of} TO {into.facts.user}; "
            "or CREATE EXTENSION pgstattuple and measure it by dbplatform metrics --exact"
        )
    if not row["estimated"]:
        into.nothing(f"no {what} is large enough for its bloat to matter", metric)
    elif row["bloated"] is None:
        into.unknown(why, metric)
    else:
        name, unused, ratio = row["bloated"]
        detail = f"about {float(unused) / (1 << 20):,.0f} MB of {name}, an estimate" + (f"; {why}" if hidden else "")
        sample = max(0.0, float(unused))
        into.found(metric, ratio, sample=sample, labels={what: name}, detail=detail, complete=not hidden)


def _indexes(connection: AutocommitConnection, into: Collecting) -> None:
    _, least = into.bloat_bytes
    row = one(connection, "metrics_indexes", {"bloat_bytes": least})
    into.found("indexes_bytes", row["bytes"], detail=f"{row['indexes']:,} indexes")
    into.worst["largest_indexes"] = row["largest_indexes"] or ()
    _bloat("index", row, into)
    _invalid(row, into)
    if not into.facts.track_counts:
        into.unknown(NO_STATISTICS, "unused_indexes", "index_hit_ratio", "index_use_ratio")
        return
    _unused(row, into)
    _use(row, into)


def _invalid(row: Row, into: Collecting) -> None:
    if not into.facts.reads_all_stats:
        into.unknown("the user may not see which indexes are being built right now", "invalid_indexes")
        return
    count, name = row["invalid"], row["first_invalid"]
    others = f" and {count - 1} more" if count > 1 else ""
    labels = {"index": name} if name else {}
    into.found("invalid_indexes", count, labels=labels, detail=f"{name}{others}" if name else "")
    into.worst["invalid_indexes"] = row["invalid_list"] or ()


def _unused(row: Row, into: Collecting) -> None:
    name = row["largest_unused"]
    into.found(
        "unused_indexes",
        row["unused"],
        sample=max(0.0, into.now.timestamp() - into.facts.counting_since),
        labels={"index": name} if name else {},
        detail=f"{row['unused_bytes'] / (1 << 20):,.0f} MB in all, the largest is {name}" if name else "",
    )
    into.worst["unused_indexes"] = row["unused_list"] or ()


def _use(row: Row, into: Collecting) -> None:
    hit = float(row["hit"])
    into.counters.update(index_hit=hit, index_read=float(row["fetched"]) - hit, index_scans=float(row["scans"]))
    into.share(
        "index_hit_ratio",
        "database_stats_reset",
        "index_hit",
        "index_read",
        of="blocks of indexes",
        are="were in shared buffers",
    )
    if "seq_scans" in into.counters:
        into.share(
            "index_use_ratio", "database_stats_reset", "index_scans", "seq_scans", of="scans", are="were by an index"
        )
    else:
        into.unknown("the tables could not be read", "index_use_ratio")


TABLES = Probe((*_SIZES, *_OWED, "table_bloat_ratio"), _tables)
INDEXES = Probe((*_OF_INDEXES, "index_bloat_ratio"), _indexes)
