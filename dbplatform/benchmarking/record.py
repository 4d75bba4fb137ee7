"""Runs of benchmarks in the ledger: the newest of them, and those that are kept as a baseline, by name."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, select, update

from dbplatform.benchmarking.errors import UnknownRun
from dbplatform.benchmarking.model import Report, Result
from dbplatform.ledger.benchmarks import BenchmarkRun
from dbplatform.ledger.ledger import Ledger

#: So many runs of a database are kept, beside its baselines.
_KEPT = 200
_FEWEST_CHARACTERS = 4


def keep(ledger: Ledger, report: Report, *, run_id: str | None = None) -> None:
    """Record a run, and forget all but the newest; one transaction. An older baseline of its name loses the name."""
    document = report.as_json()
    kept = {name: document[name] for name in ("sides", "against", "benchmarks", "pool", "notes")}
    with ledger.session() as session:
        if report.baseline is not None:
            session.execute(
                update(BenchmarkRun)
                .where(BenchmarkRun.database == report.database, BenchmarkRun.baseline == report.baseline)
                .values(baseline=None)
            )
        session.add(
            BenchmarkRun(
                id=uuid.UUID(report.id),
                database=report.database,
                kind=report.kind,
                baseline=report.baseline,
                run_id=run_id,
                surroundings=dict(report.surroundings),
                result=kept,
                started_at=report.started_at,
                finished_at=report.finished_at,
            )
        )
        session.flush()
        newest = (
            select(BenchmarkRun.id)
            .where(BenchmarkRun.database == report.database)
            .order_by(BenchmarkRun.started_at.desc())
            .limit(_KEPT)
        )
        session.execute(
            delete(BenchmarkRun).where(
                BenchmarkRun.database == report.database,
                BenchmarkRun.baseline.is_(None),
                BenchmarkRun.id.not_in(newest),
            )
        )


def find(ledger: Ledger, database: str, name: str) -> Report:
    """The baseline of that name, or the plain run whose id this is, or begins so. Raises ``UnknownRun``."""
    with ledger.session() as session:
        plain = select(BenchmarkRun).where(BenchmarkRun.database == database, BenchmarkRun.kind == "run")
        found = session.scalars(plain.where(BenchmarkRun.baseline == name)).first()
        if found is None and len(name) >= _FEWEST_CHARACTERS:
            runs = session.scalars(plain.order_by(BenchmarkRun.started_at.desc()))
            found = next((one for one in runs if str(one.id).startswith(name.lower())), None)
        if found is None:
            raise UnknownRun(name=name, database=database, hint=f"Keep one: dbplatform bench run {database} --baseline")
        return _report(found)


def newest(ledger: Ledger, database: str, kinds: Sequence[str] = ("run",), limit: int = 30) -> list[Report]:
    """The newest runs of these kinds, the newest first."""
    query = (
        select(BenchmarkRun)
        .where(BenchmarkRun.database == database, BenchmarkRun.kind.in_(kinds))
        .order_by(BenchmarkRun.started_at.desc())
        .limit(limit)
    )
    with ledger.session() as session:
        return [_report(one) for one in session.scalars(query)]


def has_baseline(ledger: Ledger, database: str, name: str) -> bool:
    """Whether a run is kept under that name."""
    query = select(BenchmarkRun.id).where(BenchmarkRun.database == database, BenchmarkRun.baseline == name)
    with ledger.session() as session:
        return session.scalars(query).first() is not None


def _report(found: BenchmarkRun) -> Report:
    kept: dict[str, Any] = found.result
    kind: Any = found.kind
    return Report(
        id=str(found.id),
        database=found.database,
        started_at=found.started_at,
        finished_at=found.finished_at,
        kind=kind,
        sides=(kept["sides"]["a"], kept["sides"]["b"]),
        against=kept["against"],
        results=tuple(Result.from_json(one) for one in kept["benchmarks"]),
        pool=tuple(kept["pool"]),
        surroundings=found.surroundings,
        notes=tuple(kept["notes"]),
        baseline=found.baseline,
    )
