"""The rows that a run has counted as failing leave the table for the quarantine, in small transactions.

Which rows: their places and versions (``tableoid``, ``ctid``, ``xmin``) are written into a temporary file from the
snapshot in which they were counted. A row is moved when it is still that version *and* still fails: one that was
changed since is judged by the next run. Each batch deletes and inserts in one statement, so that a killed process
neither loses nor doubles a row; the next run finds what is left.

A row that others refer to stays, whatever their foreign key would do (ON DELETE CASCADE would take rows that are in no
quarantine): rows are locked first (FOR UPDATE) and judged by a later statement, which therefore sees every row that has
come to refer to them (manual: "13.3.2 Row-Level Locks"). Triggers fire, as for any DELETE.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import BinaryIO

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.errors import PlatformError
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock
from dbplatform.quality.checks.base import Check, Separable
from dbplatform.quality.examination import Examination
from dbplatform.quality.masks import reason_of
from dbplatform.quality.quarantine.place import (
    CHECKS,
    RUN,
    Place,
    TableLocked,
    ensure_place,
    lock_for_rows,
    place_of,
    read_place,
)
from dbplatform.quality.quarantine.references import Reference, references_to

ROWS_PER_BATCH = 1_000
_LOCK_TIMEOUT_MS = 2_000
_STATEMENT_TIMEOUT_MS = 600_000
_TRIES = 5
_ROWS_LOCKED = "another session holds a lock on them"

_Version = tuple[int, str, str]
"""The table (a partition) by its oid, the place in it, the transaction that wrote it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """What a run would move, or moves: the place, the checks by name, and why some checks' rows stay."""

    place: Place | None
    checks: tuple[Separable, ...]
    refused: Mapping[str, str]


@dataclass(slots=True, kw_only=True)
class Moved:
    """What became of the rows of each check: how many were moved, and how many stay, by reason."""

    place: Relation
    moved: Counter[str] = field(default_factory=Counter)
    stay: dict[str, Counter[str]] = field(default_factory=dict)


def plan_moves(examination: Examination) -> list[Planned]:
    """Which checks of an examined table move their rows, a plan for each place; only reads.

    Those that declare a quarantine and have failing rows, unless the failure is accepted, or more fail than
    ``at_most``.
    """
    found = {result.name: result for result in examination.result.checks}
    by_place: dict[Relation, list[Separable]] = {}
    refused: dict[str, str] = {}
    for check in examination.checks:
        if not isinstance(check, Separable) or check.quarantine is None:
            continue
        result, at_most = found[check.name], check.quarantine.at_most
        failed = result.failed_rows or 0
        if not failed or result.status == "accepted":
            continue
        if at_most is not None and not at_most.allows(failed, result.considered_rows or 0):
            refused[check.name] = f"none of its rows is moved aside: more than {at_most} fail"
            continue
        by_place.setdefault(place_of(examination.relation, check.quarantine.to), []).append(check)
    plans = []
    for table, checks in by_place.items():
        try:
            place = read_place(examination.connection, examination.relation, table)
            references_to(examination.connection, examination.relation)
        except PlatformError as error:
            refused |= {check.name: error.message for check in checks}
        else:
            plans.append(Planned(place=place, checks=tuple(checks), refused={}))
    return [*plans, Planned(place=None, checks=(), refused=refused)] if refused else plans


@contextmanager
def staged(examination: Examination, plan: Planned) -> Iterator[BinaryIO]:
    """The versions of the rows to move, a line each, in a temporary file. Raises ``psycopg.Error``."""
    name = examination.relation.name
    query = sql.SQL("copy (select {0}.tableoid, {0}.ctid, {0}.xmin from {1} where {2}) to stdout").format(
        sql.Identifier(name), examination.relation.identifier, _any_of(plan.checks, examination.relation)
    )
    with tempfile.TemporaryFile(prefix="dbplatform-quarantine-") as file:
        with examination.connection.cursor().copy(query) as copy:
            for block in copy:
                file.write(block)
        file.seek(0)
        yield file


def apply_moves(target: Target, plan: Planned, versions: BinaryIO, run_id: str, *, masks: bool) -> Moved:
    """Move the rows, under the database's writer lock; can be called again.

    Each batch of 1,000 is a transaction: ROW EXCLUSIVE on both tables, row locks, waited for at most 2 s, six times;
    no statement takes longer than 10 minutes. What PostgreSQL refuses is a reason for which rows stay, not an error.
    Raises ``LockNotAcquired`` for the writer lock, ``CannotQuarantine``, ``CannotConnect`` and ``SessionLost``.
    """
    place = plan.place
    assert place is not None
    total = sum(1 for _ in versions)
    versions.seek(0)
    work = _Moves(place=place, checks=plan.checks, run_id=run_id, masks=masks, moved=Moved(place=place.table))
    done, going = 0, True
    with (
        connect(
            target,
            work="quarantine",
            lock_timeout_ms=_LOCK_TIMEOUT_MS,
            statement_timeout_ms=_STATEMENT_TIMEOUT_MS,
        ) as connection,
        advisory_lock(connection),
    ):
        ensure_place(connection, place)
        for oid, batch in _batches(versions):
            if going:
                going = work.move(connection, oid, batch)
            else:
                work.all_stay(batch, TableLocked.words)
            done += len(batch)
            progress.report(f"move aside {place.source.words}", done=done, total=total, unit="rows")
    return work.moved


@dataclass(frozen=True, slots=True, kw_only=True)
class _Moves:
    place: Place
    checks: tuple[Separable, ...]
    run_id: str
    masks: bool
    moved: Moved

    def move(self, connection: AutocommitConnection, oid: int, batch: Sequence[_Version]) -> bool:
        """Move a batch; where others go on holding some of its rows, the rest of it.

        False where others go on holding a whole table: then there is no sense in trying another batch.
        """
        reason = _ROWS_LOCKED
        for tries in range(_TRIES + 1):
            try:
                with connection.transaction():
                    moved, stay = self._batch(connection, oid, batch, around_locks=tries == _TRIES)
            except TableLocked as locked:
                reason = locked.words
            except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected):
                reason = _ROWS_LOCKED
            except psycopg.Error as error:
                if connection.closed or connection.broken:
                    raise
                self.all_stay(batch, reason_of(error, masks=self.masks).rstrip("."))
                return True
            else:
                self.moved.moved += moved
                for why, counts in stay.items():
                    self.moved.stay.setdefault(why, Counter()).update(counts)
                return True
        self.all_stay(batch, reason)
        return reason != TableLocked.words

    def all_stay(self, batch: Sequence[_Version], reason: str) -> None:
        counts = self.moved.stay.setdefault(reason, Counter())
        for check in self.checks:
            counts[check.name] += len(batch)

    def _batch(
        self, connection: AutocommitConnection, oid: int, batch: Sequence[_Version], *, around_locks: bool
    ) -> tuple[Counter[str], dict[str, Counter[str]]]:
        source, name = self.place.source, sql.Identifier(self.place.source.name)
        # No foreign key can be added to it, and no partition detached, until this transaction ends.
        lock_for_rows(connection, source, self.place.table)
        leaf = _relation(connection, oid, source)
        if leaf is None:  # dropped, or detached since: its rows are no longer those of the table
            return Counter(), {}
        these, others = _these(name, batch), None
        references = references_to(connection, source)
        if references or around_locks:
            rows = connection.execute(
                sql.SQL("select {1}.ctid::text from only {0} as {1} where {2} for update{3}").format(
                    leaf.identifier, name, these, sql.SQL(" skip locked" if around_locks else "")
                )
            ).fetchall()
            if around_locks:
                ours = {place for (place,) in rows}
                others = _these(name, [row for row in batch if row[1] not in ours])
                these = _these(name, [row for row in batch if row[1] in ours])
        failing = _any_of(self.checks, source)
        free = [sql.SQL("not {}").format(one.refers_to(name, source.name)) for one in references]
        columns = sql.SQL(", ").join(map(sql.Identifier, self.place.names))
        moved = connection.execute(
            sql.SQL(
                "with gone as ("
                "delete from only {leaf} as {name} where {where} returning {checks} as {our_checks}, {own})"
                " insert into {place} ({our_checks}, {our_run}, {columns})"
                " select {our_checks}, {run}, {columns} from gone returning {our_checks}"
            ).format(
                leaf=leaf.identifier,
                name=name,
                where=sql.SQL(" and ").join([these, failing, *free]),
                checks=self._names(source),
                our_checks=sql.Identifier(CHECKS),
                our_run=sql.Identifier(RUN),
                run=sql.Literal(self.run_id),
                own=sql.SQL(", ").join(sql.Identifier(source.name, column) for column in self.place.names),
                place=self.place.table.identifier,
                columns=columns,
            ),
            binary=True,
        ).fetchall()
        counts = Counter(check for (checks,) in moved for check in checks)
        stay = self._held(connection, leaf, these, references) if len(moved) < len(batch) else {}
        if others is not None:
            stay[_ROWS_LOCKED] = self._names_of(connection, leaf, others)
        return counts, stay

    def _held(
        self,
        connection: AutocommitConnection,
        leaf: Relation,
        these: sql.Composable,
        references: Sequence[Reference],
    ) -> dict[str, Counter[str]]:
        """How many rows of each check stay because of each foreign key."""
        source, name = self.place.source, sql.Identifier(self.place.source.name)
        held = {}
        for reference in references:
            referred = sql.SQL("{} and {}").format(these, reference.refers_to(name, source.name))
            if counts := self._names_of(connection, leaf, referred):
                held[f"rows refer to them by the foreign key {reference.words}"] = counts
        return held

    def _names_of(self, connection: AutocommitConnection, leaf: Relation, these: sql.Composable) -> Counter[str]:
        """How many of these rows fail each check."""
        source = self.place.source
        rows = connection.execute(
            sql.SQL("select {} from only {} as {} where {} and {}").format(
                self._names(source),
                leaf.identifier,
                sql.Identifier(source.name),
                these,
                _any_of(self.checks, source),
            ),
            binary=True,
        ).fetchall()
        return Counter(check for (checks,) in rows for check in checks)

    def _names(self, source: Relation) -> sql.Composable:
        """The names of the checks that a row fails."""
        cases = [
            sql.SQL("case when {} then {}::text end").format(_failing(check, source), sql.Literal(check.name))
            for check in self.checks
        ]
        return sql.SQL("array_remove(array[{}], null)").format(sql.SQL(", ").join(cases))


def _these(name: sql.Identifier, batch: Sequence[_Version]) -> sql.Composable:
    """The rows of a batch that are what they were. Literals: what a person wrote stands beside them, and may have a
    percent sign in it."""
    return sql.SQL(
        "{name}.ctid = any({places}::tid[]) and {name}.ctid::text || ' ' || {name}.xmin::text = any({versions}::text[])"
    ).format(
        name=name,
        places=sql.Literal([place for _, place, _ in batch]),
        versions=sql.Literal([f"{place} {version}" for _, place, version in batch]),
    )


def _any_of(checks: Sequence[Check], source: Relation) -> sql.Composable:
    return sql.SQL("({})").format(sql.SQL(" or ").join(_failing(check, source) for check in checks))


def _failing(check: Check, source: Relation) -> sql.Composable:
    condition = check.failing(source)
    assert condition is not None, check.type
    return sql.SQL("({})").format(condition)


def _batches(versions: BinaryIO) -> Iterator[tuple[int, list[_Version]]]:
    """The versions in their order, some of one table at a time."""
    rows = (_version(line) for line in versions)
    for oid, group in groupby(rows, key=lambda row: row[0]):
        while batch := list(islice(group, ROWS_PER_BATCH)):
            yield oid, batch


def _version(line: bytes) -> _Version:
    oid, place, version = line.decode().rstrip("\n").split("\t")
    return int(oid), place, version


def _relation(connection: AutocommitConnection, oid: int, source: Relation) -> Relation | None:
    """The name of the source or a partition of it; none where it is neither (any more)."""
    row = connection.execute(
        "select n.nspname::text, c.relname::text from pg_class c join pg_namespace n on n.oid = c.relnamespace "
        "where c.oid = %(oid)s::oid and (c.oid = %(source)s::regclass or c.oid in ("
        "select relid from pg_partition_tree(%(source)s::regclass)))",
        {"oid": oid, "source": str(source)},
    ).fetchone()
    return None if row is None else Relation(*row)
