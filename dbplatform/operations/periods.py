"""One period of a partitioned table, such as a month: chosen, looked at, and brought into order.

A period is a cell of the table's grid, and has a key that people read: ``2026-03``, ``2026-03-15``, ``1000000``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from psycopg import sql

from dbplatform.archiving.errors import NotProven
from dbplatform.archiving.partitions import listed_rows
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations import archives
from dbplatform.operations.partitions import placed
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.apply import apply_partitions
from dbplatform.partitioning.bounds import Bounds, covering_key, key_of
from dbplatform.partitioning.due import condition_of, read_due
from dbplatform.partitioning.existing import ExistingPartitions, read_existing
from dbplatform.partitioning.held import zone_of
from dbplatform.partitioning.plan import partition_json, plan_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retired import read_retired
from dbplatform.postgres.catalog import count_and_hash
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.keys import Relationship
from dbplatform.quality.checks.rows import RowCheck
from dbplatform.quality.engine import run_table
from dbplatform.quality.masks import Masks
from dbplatform.quality.results import CheckResult

#: ``made``: by this call; ``detached``: retired, and its table is still there; ``retired``: dropped; ``missing``: a dry
#: run would make it, or its rows lie in the default partition, more than one transaction may move.
State = Literal["attached", "made", "detached", "retired", "missing"]


class UnknownPeriod(UsageError):
    """{key!r} is no period of {table}, which is divided by {interval}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Period:
    """What a period holds."""

    key: str
    bounds: Bounds
    state: State
    relations: tuple[Relation, ...]
    """The partitions that hold its rows: one, or several where others have made them narrower."""
    rows: int
    content_hash: str
    bytes: int
    archived_rows: int
    """How many rows an archive by partition has of it, in files or gone from the table."""
    archive: str | None
    """What was archived now, or why not; None: nothing was to be."""
    checks: tuple[CheckResult, ...]
    """The checks of rows of this table, asked of these rows alone; they are not kept in the ledger."""

    def as_json(self) -> dict[str, Any]:
        """What a run publishes."""
        place = self.relations[0] if self.relations else Relation("public", "")
        return {
            "period": self.key,
            **partition_json(place, self.bounds),
            "state": self.state,
            "partitions": [str(relation) for relation in self.relations],
            "rows": self.rows,
            "content_hash": self.content_hash,
            "bytes": self.bytes,
            "archived_rows": self.archived_rows,
            "archive": self.archive,
            "checks": [check.as_json() for check in self.checks],
        }


def known_keys(platform: Platform, declared: Declared, policy: PartitionPolicy) -> list[str]:
    """The keys of the periods that the table's partitions begin, in their order; only reads."""
    with connect(platform.target(declared), work="periods") as connection, placed(declared, connection, policy.table):
        existing = read_existing(connection, policy)
    zone = zone_of(policy, existing.column_type)
    begins = (one.bounds.lower for one in existing.partitions if one.bounds.has_lower)
    return list(dict.fromkeys(key_of(policy.interval, lower, zone) for lower in begins))


def look(platform: Platform, declared: Declared, policy: PartitionPolicy, key: str) -> Period:
    """What the period holds, and whether it would be made; only reads."""
    with connect(platform.target(declared), work="period") as connection, placed(declared, connection, policy.table):
        bounds = _bounds(connection, policy, key)
        return _looked_at(connection, platform, declared, policy, key, bounds)


def bring_into_order(
    platform: Platform, declared: Declared, policy: PartitionPolicy, key: str, *, run_id: str | None = None
) -> Period:
    """Make the period's partition where it is missing, archive it where that is due, check and measure its rows.

    Under the writer lock. What was retired is not made again. An archive by partition writes a period that ``retain``
    does not keep; its retirement lets it go. Can be run again at any time. Raises ``UnknownPeriod``, and what making
    partitions and archiving raise; that no backup is proven is told, not raised.
    """
    now, made, words = datetime.now(UTC), False, None
    with platform.writer(declared, "period") as connection, placed(declared, connection, policy.table):
        bounds = _bounds(connection, policy, key)
        if not plan_partitions(connection, [policy], now=now, within=bounds).is_empty:
            with platform.ledger.operation(declared.name, "partition", run_id=run_id) as summary:
                report = apply_partitions(connection, [policy], now=now, within=bounds)
                summary.update(report.as_json())
                made = report.created > 0
        is_due = policy.retain is not None and any(
            one.bounds == bounds for one in read_due(connection, policy, now=now)[1]
        )
    archive = next((a for a in declared.database.archives if a.table == policy.table and a.by == "partition"), None)
    if archive is not None and is_due:
        try:
            written = archives.apply(platform, declared, archive, bounds=bounds, run_id=run_id)
            words = f"{written.written:,} rows written by {archive.name}, {written.uncovered:,} not proven stayed out"
        except NotProven as error:
            words = str(error)
    with connect(platform.target(declared), work="period") as connection:
        return _looked_at(connection, platform, declared, policy, key, bounds, made=made, archive=words)


def _looked_at(
    connection: AutocommitConnection,
    platform: Platform,
    declared: Declared,
    policy: PartitionPolicy,
    key: str,
    bounds: Bounds,
    *,
    made: bool = False,
    archive: str | None = None,
) -> Period:
    existing = read_existing(connection, policy)
    relations = tuple(one.relation for one in existing.partitions if _overlap(one.bounds, bounds))
    retired = [one for one in read_retired(connection, policy.table) if _overlap(one.bounds, bounds)]
    state: State = "made" if made else "attached" if relations else "retired" if retired else "missing"
    source = policy.table
    if not relations:
        beside = [one.relation for one in retired if one.is_there]
        if len(beside) == 1:
            relations, state, source = (beside[0],), "detached", beside[0]
    rows, content_hash = count_and_hash(connection, source, where=sql.SQL(condition_of(policy, bounds)))
    return Period(
        key=key,
        bounds=bounds,
        state=state,
        relations=relations,
        rows=rows,
        content_hash=content_hash,
        bytes=_bytes(connection, relations),
        archived_rows=_archived(platform, declared, policy, bounds),
        archive=archive,
        checks=_checked(connection, declared, policy, relations, existing, bounds),
    )


def _checked(
    connection: AutocommitConnection,
    declared: Declared,
    policy: PartitionPolicy,
    relations: Sequence[Relation],
    existing: ExistingPartitions,
    bounds: Bounds,
) -> tuple[CheckResult, ...]:
    """The checks that judge row by row, on the partition that holds exactly this period; none where none does."""
    exactly = [one.relation for one in existing.partitions if one.bounds == bounds and one.relation in relations]
    for table in declared.database.quality:
        by_row = {check.name for check in table.checks if isinstance(check, RowCheck | Relationship)}
        if table.table == policy.table and exactly and by_row:
            return run_table(
                connection,
                table.model_copy(update={"table": exactly[0]}),
                only=by_row,
                masks=Masks.declared(declared.database.quality),
            ).checks
    return ()


def _archived(platform: Platform, declared: Declared, policy: PartitionPolicy, bounds: Bounds) -> int:
    where = condition_of(policy, bounds)
    gone = sum(
        entry.deleted_rows
        for entry in archives.known(platform, declared)
        if entry.where == where and entry.status == "deleted" and entry.table == str(policy.table)
    )
    declared_archives = [a for a in declared.database.archives if a.table == policy.table and a.by == "partition"]
    return gone + sum(listed_rows(platform.ledger, declared.name, one, where) for one in declared_archives)


def _bytes(connection: AnyConnection, relations: Sequence[Relation]) -> int:
    row = connection.execute(
        "select coalesce(sum(pg_total_relation_size(to_regclass(name))), 0)::bigint from unnest(%s::text[]) as name",
        ([str(relation) for relation in relations],),
    ).fetchone()
    assert row is not None
    return int(row[0])


def _bounds(connection: AnyConnection, policy: PartitionPolicy, key: str) -> Bounds:
    """The cell of the grid that the key names. Raises ``UnknownPeriod``."""
    step, zone = policy.interval, zone_of(policy, read_existing(connection, policy).column_type)
    try:
        bounds = covering_key(step, key, zone)
    except ValueError:
        example = key_of(step, 1_000_000 if isinstance(step, int) else datetime(2026, 3, 1, tzinfo=UTC), zone)
        hint = f"Write it as in {example}."
    else:
        begins = key_of(step, bounds.lower, zone)
        if begins == key:
            return bounds
        hint = f"The period that holds it is {begins}."
    raise UnknownPeriod(key=key, table=str(policy.table), interval=step, hint=hint)


def _overlap(one: Bounds, other: Bounds) -> bool:
    return bool(one.lower < other.upper and other.lower < one.upper)
