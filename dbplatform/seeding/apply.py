"""Loads a seed by COPY: each table in one transaction together with its record, so that a killed run loses nothing.

Tables that refer to each other share a transaction, and so do those that one script fills. Rows with a key are upserted
by way of a staging table (``bulk``).

The rows stream from the file through this process into COPY; the memory needed does not grow with the file. Measured
on 336,776 flights into 18 partitions, in seconds of CPU: 4.4 to 5.2 of the server and 1.1 of this process beside it,
where COPY of a finished file needs 4.5 to 4.6 of the server. COPY of the raw text into a temporary table and INSERT ...
SELECT needs 4.9 to 5.2 of the server, doubles what is written, and its errors name no line.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from dbplatform import progress
from dbplatform.errors import LockNotAcquired, PlatformError
from dbplatform.postgres import catalog
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.locks import advisory_lock
from dbplatform.seeding.bulk import advance_sequences, copy_source, make_stage, merge
from dbplatform.seeding.contents import CsvContent, JsonContent, ScriptContent, bytes_of, name_of
from dbplatform.seeding.csv_text import Change
from dbplatform.seeding.errors import SeedFailed, SeedForeignKeyBroken, SeedRowsLost
from dbplatform.seeding.generate import Generated
from dbplatform.seeding.order import deferred
from dbplatform.seeding.passwords import hasher
from dbplatform.seeding.plan import SeedPlan, plan_seed, shift_json
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.records import ensure_records, read_shift, write_record, write_shift
from dbplatform.seeding.scripts import run_script, script_line
from dbplatform.seeding.shift import RecordedShift, mover
from dbplatform.seeding.tables import TableSeed, refuse_rows

LOCK = "seed"

_COPY_LINE = re.compile(r"^COPY .*?, line (\d+)", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class TableReport:
    """One table: loaded now, or recorded as applied before."""

    table: str
    file: str
    loaded: bool
    rows: int
    seconds: float
    bytes: int

    def as_json(self) -> dict[str, Any]:
        """One entry of ``tables``."""
        return {
            "table": self.table,
            "file": self.file,
            "status": "loaded" if self.loaded else "applied",
            "rows": self.rows,
            "seconds": round(self.seconds, 3),
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SeedReport:
    """What ``seed apply`` did."""

    database: str
    profile: str
    shift: RecordedShift | None
    tables: tuple[TableReport, ...]

    @property
    def loaded_rows(self) -> int:
        """The rows that this call has loaded."""
        return sum(table.rows for table in self.tables if table.loaded)

    def as_json(self) -> dict[str, Any]:
        """The document of ``seed apply --json``."""
        return {
            "database": self.database,
            "profile": self.profile,
            "shift": shift_json(self.shift),
            "loaded_rows": self.loaded_rows,
            "tables": [table.as_json() for table in self.tables],
        }


def apply_seed(
    connection: AutocommitConnection,
    directory: Path,
    policy: SeedPolicy,
    *,
    database: str,
    now: datetime,
    rows_scale: float = 1,
    lock_timeout_ms: int = 60_000,
) -> SeedReport:
    """Load what ``plan_seed`` finds pending, planned again under the advisory lock ``seed``.

    Each table is locked SHARE ROW EXCLUSIVE while it is loaded (readers go on), counted, analyzed and recorded in one
    transaction. Sequences that belong to loaded columns are set beyond the loaded values. Foreign keys of a circle that
    are not deferrable are made so and back within its transaction. Raises what ``plan_seed`` raises,
    ``LockNotAcquired``, ``BadCsv``, ``BadJson``, ``SeedFailed``, ``SeedForeignKeyBroken`` and ``SeedRowsLost``; the
    tables before the one that failed stay loaded.
    """
    with advisory_lock(connection, LOCK):
        plan = plan_seed(connection, directory, policy, database=database, now=now, rows_scale=rows_scale)
        shift = plan.shift
        if plan.pending:
            ensure_records(connection)
            if shift is not None and read_shift(connection, policy.profile) is None:
                write_shift(connection, policy.profile, shift)
        reports: list[TableReport] = []
        for step in plan.steps:
            todo = [table for table in step if table.pending]
            reports += [_report_of(table) for table in step if not table.pending]
            if todo:
                reports += _load(connection, plan, todo, lock_timeout_ms=lock_timeout_ms)
    return SeedReport(database=database, profile=policy.profile, shift=shift, tables=tuple(reports))


def _report_of(table: TableSeed) -> TableReport:
    assert table.record is not None
    return TableReport(
        table=str(table.table),
        file=name_of(table.content),
        loaded=False,
        rows=table.record.rows,
        seconds=table.record.seconds,
        bytes=bytes_of(table.content),
    )


def _load(
    connection: AutocommitConnection, plan: SeedPlan, todo: Sequence[TableSeed], *, lock_timeout_ms: int
) -> list[TableReport]:
    """The tables of one step in one transaction."""
    reports: list[TableReport] = []
    loading = _Loading(connection, plan, todo)
    names = {table.table for table in todo}
    keys = [key for key in plan.keys if key.table in names and key.parent in names]
    try:
        with connection.transaction():
            connection.execute("select set_config('lock_timeout', %s, true)", (str(lock_timeout_ms),))
            for table in todo:
                loading.current = table
                connection.execute(sql.SQL("lock table {} in share row exclusive mode").format(table.table.identifier))
                if table.key is None:
                    refuse_rows(connection, table.table, plan.profile)
            with deferred(connection, keys):
                counts = [loading.rows_of(table) for table in todo]
            for table, (rows, seconds) in zip(todo, counts, strict=True):
                loading.current = table
                if isinstance(table.content, ScriptContent):
                    rows = catalog.row_count(connection, table.table)
                advance_sequences(connection, table.table, table.content.targets)
                connection.execute(sql.SQL("analyze {}").format(table.table.identifier))
                write_record(
                    connection,
                    plan.profile,
                    table.table,
                    sha256=table.sha256,
                    scale=table.scale,
                    rows=rows,
                    seconds=seconds,
                )
                reports.append(
                    TableReport(
                        table=str(table.table),
                        file=name_of(table.content),
                        loaded=True,
                        rows=rows,
                        seconds=seconds,
                        bytes=bytes_of(table.content),
                    )
                )
    except psycopg.Error as error:
        raise _explained(error, loading.blamed(error), lock_timeout_ms) from error
    return reports


class _Loading:
    """The tables of one transaction, and which of them is being loaded."""

    def __init__(self, connection: AutocommitConnection, plan: SeedPlan, todo: Sequence[TableSeed]) -> None:
        self.connection, self.plan, self.todo = connection, plan, todo
        self.current = todo[0]
        self.run: set[ScriptContent] = set()

    def rows_of(self, table: TableSeed) -> tuple[int, float]:
        """Load one table; gives its rows in the seed, and the seconds that it took."""
        started = time.monotonic()
        self.current = table
        if isinstance(table.content, ScriptContent):
            if table.content not in self.run:
                self.run.add(table.content)
                run_script(self.connection, table.content.text())
            rows = 0
        elif table.key is None:
            rows = self._copied(table, table.table.identifier, table.table.identifier)
        else:
            staged = make_stage(self.connection, table.table, table.content.targets)
            rows = self._copied(table, staged, staged)
            kept = table.content.kept if isinstance(table.content, Generated) else ()
            merge(
                self.connection,
                table.table,
                staged,
                table.content.targets,
                keys=table.key,
                keep=(*table.passwords, *kept),
            )
        return rows, time.monotonic() - started

    def blamed(self, error: psycopg.Error) -> TableSeed:
        """The table that an error is about: a constraint's, else the one that was being loaded."""
        named = (error.diag.schema_name, error.diag.table_name)
        return next((one for one in self.todo if (one.table.schema, one.table.name) == named), self.current)

    def _copied(self, table: TableSeed, target: sql.Composable, counted_in: sql.Composable) -> int:
        """COPY into the table or its staging table; the rows made, taken and present must be the same number."""
        task = f"seed {table.table.words}"
        if isinstance(table.content, Generated):
            rows, copied = self._generated(table, table.content, target, task)
        else:
            assert isinstance(table.content, CsvContent | JsonContent)
            rows, copied = self._lines(table, table.content, target, task)
        row = self.connection.execute(sql.SQL("select count(*) from {}").format(counted_in)).fetchone()
        counted = row[0] if row else 0
        if not rows == copied == counted:
            raise SeedRowsLost(
                table=str(table.table),
                file_rows=rows,
                copied=copied,
                counted=counted,
                hint="Look for triggers, rules or row-level security that keep rows back.",
            )
        progress.report(task, done=rows, total=rows, unit="rows")
        return rows

    def _lines(
        self, table: TableSeed, content: CsvContent | JsonContent, target: sql.Composable, task: str
    ) -> tuple[int, int]:
        statement = sql.SQL("copy {} ({}) from stdin").format(
            target, sql.SQL(", ").join(map(sql.Identifier, content.targets))
        )
        rows = 0
        with self.connection.cursor() as cursor:
            with cursor.copy(statement) as copy:
                for lines in content.lines(self._changes(table)):
                    if lines:
                        copy.write(b"\n".join(lines) + b"\n")
                        rows += len(lines)
                        progress.report(task, done=rows, unit="rows")
            return rows, cursor.rowcount

    def _generated(self, table: TableSeed, content: Generated, target: sql.Composable, task: str) -> tuple[int, int]:
        siblings = {other.table: other.content for other in self.todo if isinstance(other.content, Generated)}
        length = self.plan.shift.length if self.plan.shift is not None else None
        moved = dict.fromkeys(table.moved, length) if length is not None else {}
        rows = content.source(self.connection, siblings, not_null=table.not_null, moved=moved)
        types = {column.name: column.type for column in catalog.columns(self.connection, table.table)}
        return content.rows, copy_source(self.connection, target, rows, types, task=task)

    def _changes(self, table: TableSeed) -> Mapping[str, Change]:
        changes: dict[str, Change] = {}
        if self.plan.shift is not None and table.moved:
            changes |= dict.fromkeys(table.moved, mover(self.plan.shift.length))
        if table.passwords:
            changes |= dict.fromkeys(table.passwords, hasher(self.plan.rounds))
        return changes


def _explained(error: psycopg.Error, table: TableSeed, lock_timeout_ms: int) -> PlatformError:
    diag = error.diag
    if isinstance(error, psycopg.errors.LockNotAvailable):
        return LockNotAcquired(
            lock=f"a lock on {table.table}",
            waited_ms=lock_timeout_ms,
            hint="Find in pg_stat_activity the transaction that holds it, then apply again.",
        )
    if isinstance(error, psycopg.errors.ForeignKeyViolation):
        return SeedForeignKeyBroken(
            table=str(table.table),
            constraint=diag.constraint_name,
            detail=diag.message_detail or diag.message_primary or "",
            hint="Load the table that it refers to first, or mend the file.",
            file=name_of(table.content),
        )
    reason = diag.message_primary or str(error)
    no_partition = reason.startswith("no partition of relation")
    if diag.message_detail:
        reason = f"{reason}: {diag.message_detail.rstrip('.')}"
    return SeedFailed(
        table=str(table.table),
        reason=reason,
        hint="Make its partitions first (dbplatform partition apply), with a start that reaches back far enough."
        if no_partition
        else "Mend the file, name the text under nulls, or change the table.",
        file=name_of(table.content),
        line=_line(error, table),
    )


def _line(error: psycopg.Error, table: TableSeed) -> int | None:
    if isinstance(table.content, ScriptContent):
        return script_line(error, table.content.text())
    match = _COPY_LINE.search(error.diag.context or "")
    return table.content.line_of(int(match[1])) if match and not isinstance(table.content, Generated) else None
