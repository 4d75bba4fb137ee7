"""Since when a check fails, and what happened between the last run in which all was well and the first in which not.

Nothing here claims that one thing caused the other: these are the facts that somebody looks for first. They come from
the ledger alone: what the platform did, and what each run saw of the server's settings and its history of migrations.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from sqlalchemy import Select, func, or_, select, tuple_
from sqlalchemy.orm import Session

from dbplatform.ledger.models import Operation, QualityResult, QualityRun, QualityTable
from dbplatform.ledger.reports import QualitySurroundings

#: What needs somebody's attention; ``accepted`` is a failure that somebody has already answered for.
BAD: Final = frozenset({"failed", "errored"})
#: How many runs are searched for the beginning of a failure.
_SEARCHED_RUNS: Final = 1_000
#: What changes nothing in the data.
_HARMLESS: Final = ("base backup", "prune", "restore point", "prune reports", "cleanup")
_WORDS: Final = {
    "migrate": "migrations applied",
    "partition": "partitions made",
    "retire": "old partitions retired",
    "archive_restore": "archived rows restored",
    "erase": "rows erased on purpose",
    "expire": "archives expired",
    "replay": "erasures repeated",
    "convert": "table converted to partitions",
    "unconvert": "table converted back",
    "restore": "backup restored",
    "restore_table": "table restored from a backup",
    "undo": "migration undone",
    "baseline": "history of migrations begun",
    "repair": "history of migrations mended",
}

CheckKey = tuple[str, str]
"""Table and name of a check."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunAt:
    """A finished run and when it was."""

    run_id: str
    started_at: datetime
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Onset:
    """Since when a check has been failed or errored without a break."""

    first: RunAt
    last_good: RunAt | None
    """The newest run before it in which the check passed or was accepted; none where there is none on record."""
    runs: int
    """In how many runs, this one included."""
    complete: bool
    """False where the search ended before a good run was found: then it may have begun earlier."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that was different, or was done, in between."""

    kind: Literal["migration", "operation", "setting", "check", "rows"]
    words: str
    at: datetime | None = None
    run_id: str | None = None
    """The Dagster run that did it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """What happened between two runs, for all checks that began to fail in the second of them."""

    last_good: RunAt
    first: RunAt
    checks: tuple[CheckKey, ...]
    facts: tuple[Fact, ...]
    not_known: str | None
    """What of this cannot be told, and why."""


def onsets(session: Session, database: str, run_id: str, started_at: datetime, bad: Collection[CheckKey]) -> dict[
    CheckKey, Onset
]:  # fmt: skip
    """Where each of these checks, which are bad in this run, began to be so; looks back over 1,000 runs."""
    if not bad:
        return {}
    runs = (
        select(QualityRun.run_id, QualityRun.started_at, QualityRun.finished_at)
        .where(
            QualityRun.database == database,
            QualityRun.verdict.is_not(None),
            tuple_(QualityRun.started_at, QualityRun.run_id) <= tuple_(started_at, run_id),
        )
        .order_by(QualityRun.started_at.desc(), QualityRun.run_id.desc())
        .limit(_SEARCHED_RUNS)
        .subquery()
    )
    statement = (
        select(QualityResult.table_name, QualityResult.name, QualityResult.status, runs)
        .join(runs, runs.c.run_id == QualityResult.run_id)
        .where(tuple_(QualityResult.table_name, QualityResult.name).in_(list(bad)))
        .order_by(runs.c.started_at.desc(), runs.c.run_id.desc())
    )
    seen: defaultdict[CheckKey, list[tuple[str, RunAt]]] = defaultdict(list)
    for table, name, status, run, started, finished in session.execute(statement):
        seen[table, name].append(
            (status, RunAt(run_id=run, started_at=started.astimezone(UTC), finished_at=finished.astimezone(UTC)))
        )
    searched = session.scalar(select(func.count()).select_from(runs)) or 0
    return {key: onset_of(outcomes, complete=searched < _SEARCHED_RUNS) for key, outcomes in seen.items()}


def onset_of(outcomes: list[tuple[str, RunAt]], *, complete: bool) -> Onset:
    """From outcomes with the newest first."""
    good = next((place for place, (status, _) in enumerate(outcomes) if status not in BAD), None)
    runs = len(outcomes) if good is None else good
    return Onset(
        first=outcomes[runs - 1][1],
        last_good=None if good is None else outcomes[good][1],
        runs=runs,
        complete=complete or good is not None,
    )


def causes(session: Session, database: str, found: Mapping[CheckKey, Onset]) -> tuple[Cause, ...]:
    """For each pair of last good and first bad run what lies between, the newest first."""
    windows: defaultdict[tuple[str, str], list[CheckKey]] = defaultdict(list)
    for key, onset in found.items():
        if onset.last_good is not None:
            windows[onset.last_good.run_id, onset.first.run_id].append(key)
    made = []
    for checks in windows.values():
        onset = found[checks[0]]
        assert onset.last_good is not None
        made.append(_cause(session, database, onset.last_good, onset.first, tuple(sorted(checks))))
    return tuple(sorted(made, key=lambda cause: cause.first.started_at, reverse=True))


def _cause(session: Session, database: str, after: RunAt, until: RunAt, checks: tuple[CheckKey, ...]) -> Cause:
    around = {row.run_id: row for row in session.scalars(_surroundings(database, after, until))}
    migrations = [
        one for run_id, row in around.items() if run_id != after.run_id for one in row.migrations
    ]  # an earlier run has seen the others
    done = [*_migrations(migrations), *_operations(session, database, after, until, migrations)]
    done.sort(key=lambda fact: fact.at or until.started_at)
    before, now = around.get(after.run_id), around.get(until.run_id)
    settings = _settings(before.settings, now.settings) if before is not None and now is not None else []
    unknown = None
    if before is None or now is None:
        missing = " and ".join(one.run_id[:8] for one in (after, until) if one.run_id not in around)
        unknown = f"Settings and the history of migrations were not kept with run {missing}."
    facts = (*done, *settings, *_changed_checks(session, after, until, checks), *_rows(session, after, until, checks))
    return Cause(last_good=after, first=until, checks=checks, facts=facts, not_known=unknown)


def _surroundings(database: str, after: RunAt, until: RunAt) -> Select[QualitySurroundings]:
    moment = tuple_(QualityRun.started_at, QualityRun.run_id)
    return (
        select(QualitySurroundings)
        .join(QualityRun, QualityRun.run_id == QualitySurroundings.run_id)
        .where(
            QualityRun.database == database,
            moment >= tuple_(after.started_at, after.run_id),
            moment <= tuple_(until.started_at, until.run_id),
        )
        .order_by(QualityRun.started_at)
    )


def _migrations(rows: list[dict[str, Any]]) -> Iterator[Fact]:
    for row in rows:
        name = " ".join(str(part) for part in (row.get("version"), row.get("description")) if part)
        failed = "" if row.get("success", True) else ", failed"
        yield Fact(
            kind="migration",
            words=f"{name} ({row.get('script')}), by {row.get('by')}{failed}",
            at=datetime.fromisoformat(row["at"]) if row.get("at") else None,
        )


def _operations(
    session: Session, database: str, after: RunAt, until: RunAt, migrations: list[dict[str, Any]]
) -> Iterator[Fact]:
    statement = (
        select(Operation)
        .where(
            Operation.database == database,
            Operation.kind.not_in(_HARMLESS),
            Operation.started_at < until.finished_at,
            or_(Operation.finished_at > after.started_at, Operation.started_at > after.started_at),
        )
        .order_by(Operation.started_at)
    )
    told = {row.get("script") for row in migrations}
    for operation in session.scalars(statement):
        words = _said(operation, told)
        if words is not None:
            yield Fact(kind="operation", words=words, at=operation.started_at.astimezone(UTC), run_id=operation.run_id)


def _said(operation: Operation, told: set[Any]) -> str | None:
    """The operation in words; none where it changed nothing, or where the history of migrations has told it."""
    summary, ended = operation.summary, operation.status
    words: str | None = _WORDS.get(operation.kind, operation.kind.replace("_", " "))
    if operation.kind == "migrate":
        applied = [one.get("script") for one in summary.get("migrations", []) if one.get("seconds") is not None]
        new = [str(script) for script in applied if script not in told]
        words = f"{words}: {', '.join(new)}" if new else (None if ended == "succeeded" else words)
    elif operation.kind == "seed" and summary.get("profile"):
        words = f"seed {summary['profile']}: {summary.get('loaded_rows') or 0:,} rows loaded"
    elif operation.kind == "archive" and summary.get("name"):
        rows = summary.get("deleted_rows") or 0
        words = f"archive {summary['name']}: {rows:,} rows left {summary.get('table')}"
        if not rows and ended == "succeeded":
            return None
    elif operation.kind == "partition":
        made = [f"{len(one['create'])} of {one['table']}" for one in summary.get("tables", []) if one.get("create")]
        words = f"{words}: {', '.join(made)}" if made else words
    if words is None or ended == "succeeded":
        return words
    return f"{words} ({'failed' if ended == 'failed' else 'it has not ended, or was killed'})"


def _settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[Fact]:
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        was, is_ = (one["value"] if one else "its default" for one in (old, new))
        if was != is_:
            source = f" ({new['source']})" if new else ""
            yield Fact(kind="setting", words=f"{name}: {was} → {is_}{source}")


def _changed_checks(session: Session, after: RunAt, until: RunAt, checks: tuple[CheckKey, ...]) -> Iterator[Fact]:
    """Checks that were declared otherwise: their SQL, tolerance or severity is another one."""
    statement = select(QualityResult).where(QualityResult.run_id.in_((after.run_id, until.run_id)))
    found: defaultdict[CheckKey, dict[str, QualityResult]] = defaultdict(dict)
    for row in session.scalars(statement):
        found[row.table_name, row.name][row.run_id] = row
    for key in checks:
        old, new = found[key].get(after.run_id), found[key].get(until.run_id)
        if old is None or new is None:
            continue
        changed = [what for what in ("tolerance", "severity") if getattr(old, what) != getattr(new, what)]
        # The SQL of an errored check may be missing: it was never made.
        changed += ["SQL"] if old.sql and new.sql and old.sql != new.sql else []
        if changed:
            yield Fact(kind="check", words=f"{key[1]} on {key[0]}: its {' and '.join(changed)} changed")


def _rows(session: Session, after: RunAt, until: RunAt, checks: tuple[CheckKey, ...]) -> Iterator[Fact]:
    """Tables whose number of rows is another one."""
    tables = sorted({table for table, _ in checks})
    statement = select(QualityTable).where(
        QualityTable.run_id.in_((after.run_id, until.run_id)), QualityTable.table_name.in_(tables)
    )
    counts = {(row.table_name, row.run_id): row.row_count for row in session.scalars(statement)}
    for table in tables:
        old, new = counts.get((table, after.run_id)), counts.get((table, until.run_id))
        if old is not None and new is not None and old != new:
            yield Fact(kind="rows", words=f"{table}: {old:,} → {new:,} rows ({new - old:+,})")
