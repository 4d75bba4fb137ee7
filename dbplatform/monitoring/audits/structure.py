"""The structure of a database: what tables, indexes and foreign keys there are, of which types, and what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any

from dbplatform.monitoring.audits.finding import Audit, Auditing, Row, Rule
from dbplatform.monitoring.kind import manual
from dbplatform.monitoring.probes.collecting import one
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import SCHEMA

_TIMES = "https://wiki.postgresql.org/wiki/Don't_Do_This#Date/Time_storage"
_FOREIGN_KEYS = manual("ddl-constraints.html#DDL-CONSTRAINTS-FK")

#: A key that has used so much of its numbers is a matter for the next release, long before the alert.
_NEAR_ITS_END = 0.5
#: A smaller table is read in a moment.
_LARGE_ROWS = 10_000

NOT_AS_MIGRATED = Rule(
    name="not_as_migrated",
    severity="warning",
    meaning="The schema is not what its migrations make: a change by hand, or a migration that was not whole.",
    document="docs/how-to/migrations.md",
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule(
                name="no_primary_key",
                severity="warning",
                meaning="Without a primary key rows cannot be told apart: logical replication, upserts, quarantine and "
                "erasure need one.",
                document=manual("ddl-constraints.html#DDL-CONSTRAINTS-PRIMARY-KEYS"),
            ),
            Rule(
                name="foreign_key_without_index",
                severity="warning",
                meaning="Each DELETE, and UPDATE of the key, in the table that is referred to reads all of the "
                "referring table, and holds its locks for as long.",
                document=_FOREIGN_KEYS,
            ),
            Rule(
                name="small_foreign_key_without_index",
                severity="notice",
                meaning="The same, of a table that is small: it costs little until it grows.",
                document=_FOREIGN_KEYS,
            ),
            Rule(
                name="type_differs_from_referenced",
                severity="warning",
                meaning="Values of the one type may not fit the other, and joins may not use the index.",
                document=_FOREIGN_KEYS,
            ),
            Rule(
                name="constraint_not_validated",
                severity="warning",
                meaning="Only rows that were written since are proven; the planner may not rely on it.",
                document=manual("sql-altertable.html#SQL-ALTERTABLE-DESC-VALIDATE-CONSTRAINT"),
            ),
            Rule(
                name="constraint_not_enforced",
                severity="critical",
                meaning="The constraint is written down and holds nothing: rows that break it come in unseen.",
                document=manual("sql-altertable.html"),
            ),
            Rule(
                name="trigger_disabled",
                severity="warning",
                meaning="What the trigger does is not done: often left behind by a bulk load.",
                document=manual("sql-altertable.html#SQL-ALTERTABLE-DESC-DISABLE-ENABLE-TRIGGER"),
            ),
            Rule(
                name="duplicate_index",
                severity="warning",
                meaning="Two equal indexes cost every write twice and serve no query more.",
                document=manual("indexes.html"),
            ),
            Rule(
                name="invalid_index",
                severity="warning",
                meaning="A failed CREATE or REINDEX CONCURRENTLY left it, or a partition's index was never attached.",
                document=manual("sql-createindex.html#SQL-CREATEINDEX-CONCURRENTLY"),
            ),
            Rule(
                name="key_near_its_end",
                severity="warning",
                meaning="When the sequence has come to its end, or to that of its column's type, inserts fail.",
                document=manual("datatype-numeric.html#DATATYPE-SERIAL"),
            ),
            Rule(
                name="timestamp_without_time_zone",
                severity="notice",
                meaning="It is no moment: what it means depends on who reads it. timestamptz is one.",
                document=_TIMES,
            ),
            Rule(
                name="time_with_time_zone",
                severity="notice",
                meaning="A time of day with an offset, but without a date, cannot know daylight saving.",
                document=_TIMES,
            ),
            Rule(
                name="money",
                severity="notice",
                meaning="Its currency and fractions are those of the session's lc_monetary; numeric has none.",
                document=manual("datatype-money.html"),
            ),
            Rule(
                name="padded_text",
                severity="notice",
                meaning="char(n) is filled up with blanks, which comparisons then leave out. text with a CHECK is "
                "neither slower nor larger.",
                document=manual("datatype-character.html"),
            ),
            NOT_AS_MIGRATED,
        )
    }
)
_FROM_SEQUENCES, _FROM_MIGRATIONS = "key_near_its_end", NOT_AS_MIGRATED.name


def audit(
    connection: AutocommitConnection,
    *,
    database: str,
    now: datetime,
    history_table: Relation | None = None,
    migrated: Mapping[str, Any] | str,
    differences: Iterable[Row] = (),
) -> Audit:
    """The structure of the connected database, whose connection is a ``collect.session``. Two statements, reading only.

    Lock: ACCESS SHARE on the catalog, the weakest on each sequence while it is read. ``migrated`` is what the
    migrations make, in numbers, or why that is not known; ``differences`` are the rows of findings that follow from it.
    """
    auditing = Auditing(connection, RULES)
    lists: dict[str, list[dict[str, Any]]] = {}

    def catalog() -> list[Row]:
        values = {"history": str(history_table) if history_table else None, "leave_out": SCHEMA, "large": _LARGE_ROWS}
        (row,) = auditing.rows("audit_structure", values)
        lists.update({name: row[name] for name in ("tables", "indexes", "foreign_keys")})
        findings: list[Row] = row["findings"]
        return findings

    of_catalog = [name for name in RULES if name not in (_FROM_SEQUENCES, _FROM_MIGRATIONS)]
    auditing.ask(of_catalog, catalog)
    auditing.ask([_FROM_SEQUENCES], lambda: _sequences(auditing))
    if isinstance(migrated, str):
        auditing.unknown(migrated, _FROM_MIGRATIONS)
    else:
        auditing.ask([_FROM_MIGRATIONS], lambda: differences)
    return auditing.ended("structure", database=database, now=now, inventory=_inventory(lists, migrated))


def _sequences(auditing: Auditing) -> Iterable[Row]:
    row = one(auditing.connection, "metrics_sequences")
    if row["hidden"]:
        auditing.unknown(
            f"{row['hidden']} of {row['sequences']} sequences may not be read; "
            f"GRANT SELECT ON ALL SEQUENCES IN SCHEMA {row['schemas']} TO the user",
            _FROM_SEQUENCES,
        )
    for sequence in row["nearest"] or ():
        if sequence["used"] >= _NEAR_ITS_END:
            yield {
                "rule": _FROM_SEQUENCES,
                "object": sequence["name"],
                "evidence": f"it is at {int(sequence['last']):,}: {sequence['used']:.0%} of its numbers are used",
                "mend": "change its column, and those that refer to it, to bigint by a migration; then "
                f"ALTER SEQUENCE {sequence['name']} AS bigint;",
            }


def _inventory(lists: Mapping[str, list[dict[str, Any]]], migrated: Mapping[str, Any] | str) -> dict[str, Any]:
    if not lists:
        return {"counts": None, "migrated": migrated}
    types = Counter(type_ for table in lists["tables"] for type_ in table["columns"].values())
    return {
        "counts": {name: len(found) for name, found in lists.items()} | {"columns": types.total()},
        "types": dict(types.most_common()),
        "migrated": migrated,
        **lists,
    }
