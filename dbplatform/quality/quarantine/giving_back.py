"""The way back: rows leave the quarantine for their table, in small transactions, and what lies there.

A batch deletes from the one and inserts into the other in one statement: killed anywhere, no row is lost or doubled.
Generated columns are made again; defaults fill the columns that the table has got since. A row that the table refuses
(its key is taken, its partition is gone) stays in the quarantine, counted by the constraint; triggers fire.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.errors import WorkError
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AnyConnection, AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.masks import reason_of
from dbplatform.quality.quarantine.place import (
    CHECKS,
    ID,
    MOVED_AT,
    OURS,
    RUN,
    TableLocked,
    columns_of,
    known_places,
    lock_for_rows,
)

ROWS_PER_BATCH = 1_000
_LOCK_TIMEOUT_MS = 2_000
_STATEMENT_TIMEOUT_MS = 600_000
_TRIES = 5


class ColumnGone(WorkError):
    """The rows in {place} have a column {column}, and {table} has none of that name."""


class NotReturned(WorkError):
    """Rows of {table} could not be returned: {reason}."""


class RowsSwallowed(WorkError):
    """{table} took {taken} of {given} rows without an error: a trigger or rule of it drops rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Aside:
    """Rows of one table that one run moved aside because of the same checks."""

    table: Relation
    place: Relation
    checks: tuple[str, ...]
    run_id: str | None
    rows: int
    first_at: datetime
    last_at: datetime

    def as_json(self) -> dict[str, Any]:
        """One entry of ``quarantine``."""
        return {
            "table": str(self.table),
            "place": str(self.place),
            "checks": list(self.checks),
            "run_id": self.run_id,
            "rows": self.rows,
            "first_at": self.first_at.isoformat(),
            "last_at": self.last_at.isoformat(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """How many rows of a table went back, and how many stay, by reason."""

    table: Relation
    place: Relation
    rows: int
    stay: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """One entry of ``returned``."""
        return {"table": str(self.table), "place": str(self.place), "rows": self.rows, "stay": dict(self.stay)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rows: those of a table, a check, a run; nothing said: all."""

    table: Relation | None = None
    check: str | None = None
    run_id: str | None = None

    @property
    def condition(self) -> sql.Composable:
        """For the rows of one place."""
        parts: list[sql.Composable] = [sql.SQL("true")]
        if self.check is not None:
            parts.append(sql.SQL("{} = any({})").format(sql.Literal(self.check), sql.Identifier(CHECKS)))
        if self.run_id is not None:
            parts.append(sql.SQL("{} = {}").format(sql.Identifier(RUN), sql.Literal(self.run_id)))
        return sql.SQL(" and ").join(parts)


def lies_aside(connection: AnyConnection, choice: Choice) -> list[Aside]:
    """What lies in the quarantine, by table, checks and run, the oldest first; only reads."""
    found = []
    for place, source in known_places(connection).items():
        if choice.table not in (None, source):
            continue
        rows = connection.execute(
            sql.SQL(
                "select {checks}, {run}, count(*), min({at}), max({at}) from {place} where {chosen} "
                "group by 1, 2 order by 4, 1, 2"
            ).format(
                checks=sql.Identifier(CHECKS),
                run=sql.Identifier(RUN),
                at=sql.Identifier(MOVED_AT),
                place=place.identifier,
                chosen=choice.condition,
            )
        )
        found += [
            Aside(
                table=source, place=place, checks=tuple(checks), run_id=run, rows=number, first_at=first, last_at=last
            )
            for checks, run, number, first, last in rows
        ]
    return found


def give_back(connection: AutocommitConnection, choice: Choice, *, masks: bool = False) -> list[Returned]:
    """Return the chosen rows to their tables; can be run again. The caller holds the writer lock.

    Each batch of 1,000 is a transaction: ROW EXCLUSIVE on both tables, waited for at most 2 s,
    of whole tables five times; no statement takes longer than 10 minutes. Raises ``TableMissing``,
    ``ColumnGone``, ``RowsSwallowed`` and ``NotReturned``; the batches before stay returned. ``masks`` says that
    PostgreSQL's words may quote a masked value.
    """
    tables = {(aside.place, aside.table) for aside in lies_aside(connection, choice)}
    return [_Return(connection, place, source, choice, masks).run() for place, source in sorted(tables)]


class _Return:
    """The rows of one place on their way back."""

    def __init__(
        self, connection: AutocommitConnection, place: Relation, source: Relation, choice: Choice, masks: bool
    ) -> None:
        self.connection, self.place, self.source, self.choice = connection, place, source, choice
        self.masks = masks
        require_table(connection, source)
        there = {column.name: column for column in columns_of(connection, source)}
        ours = [column.name for column in columns_of(connection, place) if column.name not in OURS]
        for name in ours:
            if name not in there:
                hint = f"Add it again, or drop it there: alter table {place} drop column {name}."
                raise ColumnGone(place=str(place), column=name, table=source.words, hint=hint)
        self.columns = [name for name in ours if not there[name].generated]
        self.locked = 0
        """How often a whole table could not be had."""
        self.rows = 0
        self.stay: Counter[str] = Counter()

    def run(self) -> Returned:
        """All batches."""
        last = 0
        while ids := self._next(last):
            last = ids[-1]
            if self.locked < _TRIES:
                self._give(ids)
            else:
                self.stay[TableLocked.words] += len(ids)
            progress.report(f"return rows of {self.source.words}", done=self.rows, unit="rows")
        return Returned(table=self.source, place=self.place, rows=self.rows, stay=dict(self.stay))

    def _next(self, last: int) -> list[int]:
        chosen = sql.SQL("select {id} from {place} where {id} > {last} and {chosen} order by {id} limit {rows}").format(
            id=sql.Identifier(ID),
            place=self.place.identifier,
            last=sql.Literal(last),
            chosen=self.choice.condition,
            rows=sql.Literal(ROWS_PER_BATCH),
        )
        return [id_ for (id_,) in self.connection.execute(chosen)]

    def _give(self, ids: Sequence[int]) -> None:
        """Return these rows; where the table refuses one of them, in halves, so that the others go."""
        try:
            with self.connection.transaction():
                self.rows += self._insert(ids)
            return
        except TableLocked as locked:
            self.locked += 1
            if self.locked < _TRIES:
                self._give(ids)
            else:
                self.stay[locked.words] += len(ids)
            return
        except psycopg.errors.LockNotAvailable:
            reason = "another session holds a lock"
        except psycopg.errors.DeadlockDetected:
            reason = "other sessions were in the way"
        except psycopg.errors.NotNullViolation as error:
            reason = f"{self.source.words} refuses them: its column {error.diag.column_name} may not be null"
        except psycopg.IntegrityError as error:
            # The name of the constraint, never the words: they quote values.
            reason = f"{self.source.words} refuses them by {error.diag.constraint_name or 'its partitions'}"
        except psycopg.Error as error:
            if self.connection.closed or self.connection.broken:
                raise
            reason = reason_of(error, masks=self.masks).rstrip(".")
            hint = "The batches before are back; mend the cause, then return the rest."
            raise NotReturned(table=self.source.words, reason=reason, hint=hint) from None
        if len(ids) == 1:
            self.stay[reason] += 1
        else:
            middle = len(ids) // 2
            self._give(ids[:middle])
            self._give(ids[middle:])

    def _insert(self, ids: Sequence[int]) -> int:
        for setting, most in (("lock_timeout", _LOCK_TIMEOUT_MS), ("statement_timeout", _STATEMENT_TIMEOUT_MS)):
            self.connection.execute("select set_config(%s, %s, true)", (setting, str(most)))
        lock_for_rows(self.connection, self.place, self.source)
        columns = sql.SQL(", ").join(map(sql.Identifier, self.columns))
        row = self.connection.execute(
            sql.SQL(
                "with back as (delete from {place} where {id} = any({ids}) returning {columns}), taken as ("
                "insert into {source} ({columns}) overriding system value select {columns} from back returning 1) "
                "select (select count(*) from back), (select count(*) from taken)"
            ).format(
                place=self.place.identifier,
                id=sql.Identifier(ID),
                columns=columns,
                source=self.source.identifier,
                ids=sql.Literal(list(ids)),  # no parameter: a name may have a percent sign in it
            )
        ).fetchone()
        assert row is not None
        given, taken = row
        if given != taken:
            raise RowsSwallowed(
                table=self.source.words, taken=taken, given=given, hint="Disable it, then return the rows again."
            )
        return int(taken)
