"""What statements cost, in the ledger: the growth between two looks, in steps of five minutes and of hours.

The earlier look is read, and the growth written, in one transaction under an advisory lock of the database: of two
processes that look at the same time, none counts twice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, func, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import StatementCounts, StatementText, StatementWindow
from dbplatform.monitoring.statements import (
    Count,
    Counts,
    Statement,
    Steps,
    explained,
    growth,
    is_lookup,
    likely_parents,
)
from dbplatform.postgres.locks import lock_key

#: Steps in seconds, and how long they are kept.
STEPS = {300: timedelta(days=2), 3600: timedelta(days=30)}
#: Of one look so many statements are kept at most: those that took most time, and those that were called most often.
MOST_KEPT = (100, 50)
MOST_SHOWN = 50
_BATCH = 5_000
_NUMBERS = ("calls", "ms", "rows", "hit", "read", "temp")


def known_statements(ledger: Ledger, database: str) -> frozenset[int]:
    """The statements of a database whose text is in the ledger."""
    with ledger.session() as session:
        return frozenset(session.scalars(select(StatementText.queryid).where(StatementText.database == database)))


def record_statements(ledger: Ledger, database: str, counts: Counts) -> None:
    """Add what was counted since the last look to the steps of five minutes and hours, and remember this look.

    A look that is older than the last one changes nothing. One transaction.
    """
    with ledger.session() as session:
        session.execute(select(func.pg_advisory_xact_lock(lock_key(f"statements/{database}"))))
        state = session.get(StatementCounts, database)
        if state is not None and state.at >= counts.at:
            return
        grown = growth(_counts(state) if state is not None else None, counts)
        kept = _largest(grown)
        for step in STEPS:
            _add(session, database, step, counts.at, {queryid: grown[queryid] for queryid in kept})
        for queryid in counts.texts:
            row = {"database": database, "queryid": queryid, "text": counts.texts[queryid]}
            session.execute(upsert(StatementText).values(row).on_conflict_do_nothing())
        session.merge(
            StatementCounts(
                database=database,
                at=counts.at,
                reset=counts.reset,
                dealloc=counts.dealloc,
                whole=counts.whole,
                counts={str(queryid): list(asdict(count).values()) for queryid, count in counts.counts.items()},
            )
        )


def _counts(state: StatementCounts) -> Counts:
    return Counts(
        at=state.at,
        reset=state.reset,
        dealloc=state.dealloc,
        whole=state.whole,
        counts={
            int(queryid): Count(**dict(zip((*_NUMBERS, "since"), numbers, strict=True)))
            for queryid, numbers in state.counts.items()
        },
    )


def _largest(grown: Mapping[int, Count]) -> set[int]:
    by_time, by_calls = MOST_KEPT
    longest = sorted(grown, key=lambda queryid: -grown[queryid].ms)[:by_time]
    return {*longest, *sorted(grown, key=lambda queryid: -grown[queryid].calls)[:by_calls]}


def _add(session: Session, database: str, step: int, at: datetime, grown: Mapping[int, Count]) -> None:
    if not grown:
        return
    begin = at - timedelta(seconds=at.timestamp() % step)
    statement = upsert(StatementWindow).values(
        [
            {
                "database": database,
                "step_s": step,
                "at": begin,
                "queryid": queryid,
                **{number: getattr(count, number) for number in _NUMBERS},
            }
            for queryid, count in sorted(grown.items())
        ]
    )
    sums = {number: getattr(StatementWindow, number) + statement.excluded[number] for number in _NUMBERS}
    session.execute(statement.on_conflict_do_update(constraint="statement_window_pkey", set_=sums))


_WITHOUT_WINDOW = text("""
    delete from ledger.statement_text t where database = :database and queryid in (
        select queryid from ledger.statement_text t where database = :database
        and not exists (select from ledger.statement_window w where w.database = t.database and w.queryid = t.queryid)
        and not exists (select from ledger.statement_counts c where c.database = t.database
                        and c.counts ? t.queryid::text)
        limit 5000)
""")


def tidy_statements(ledger: Ledger, database: str, *, now: datetime) -> None:
    """Let go of steps that are older than they are kept, at most 5,000 rows each, and of texts that none refers to."""
    with ledger.session() as session:
        now = min(now, session.scalars(select(func.now())).one())
        for step, kept in STEPS.items():
            old = (
                StatementWindow.database == database,
                StatementWindow.step_s == step,
                StatementWindow.at < now - kept,
            )
            first = session.scalars(
                select(StatementWindow.at).where(*old).order_by(StatementWindow.at).limit(1)
            ).first()
            if first is not None:
                ended = first + timedelta(seconds=step * max(1, _BATCH // sum(MOST_KEPT)))
                session.execute(delete(StatementWindow).where(*old, StatementWindow.at < ended))
        session.execute(_WITHOUT_WINDOW, {"database": database})


def statements_of(
    ledger: Ledger, database: str, *, since: datetime, now: datetime, until: datetime | None = None
) -> tuple[Statement, ...]:
    """What statements cost from ``since`` on, those that took most time first, each with what stands out in it.

    The first step is counted as a whole, where ``since`` lies in it; with ``until`` no step that begins then or later.
    """
    step = next(step for step, kept in STEPS.items() if now - since <= kept or step == max(STEPS))
    begin = since - timedelta(seconds=since.timestamp() % step)
    numbers = [func.sum(getattr(StatementWindow, number)) for number in _NUMBERS]
    statement = (
        select(StatementWindow.queryid, func.coalesce(func.min(StatementText.text), ""), *numbers)
        .outerjoin(
            StatementText,
            (StatementText.database == StatementWindow.database) & (StatementText.queryid == StatementWindow.queryid),
        )
        .where(StatementWindow.database == database, StatementWindow.step_s == step, StatementWindow.at >= begin)
        .where(*([StatementWindow.at < until] if until is not None else []))
        .group_by(StatementWindow.queryid)
        .order_by(numbers[1].desc())
        .limit(sum(MOST_KEPT) * 2)
    )
    with ledger.session() as session:
        found = [_statement(queryid, words, counted) for queryid, words, *counted in session.execute(statement)]
        loops = {
            one.queryid: {other.queryid for other in likely_parents(one, found)} for one in found if is_lookup(one)
        }
        wanted = {queryid for child, parents in loops.items() if parents for queryid in (child, *parents)}
        steps = _steps_of(session, database, step, begin, until, wanted)
    return explained(found, steps)


def _steps_of(
    session: Session, database: str, step: int, begin: datetime, until: datetime | None, wanted: Collection[int]
) -> Steps:
    """What these statements cost in each step from ``begin`` on; of a hundred at most."""
    rows = session.scalars(
        select(StatementWindow)
        .where(StatementWindow.database == database, StatementWindow.step_s == step, StatementWindow.at >= begin)
        .where(*([StatementWindow.at < until] if until is not None else []))
        .where(StatementWindow.queryid.in_(sorted(wanted)[:100]))
    )
    found: dict[int, dict[datetime, Count]] = {}
    for row in rows if wanted else ():
        found.setdefault(row.queryid, {})[row.at] = Count(**{number: getattr(row, number) for number in _NUMBERS})
    return found


def _statement(queryid: int, words: str, counted: Iterable[Any]) -> Statement:
    calls, ms, rows, hit, read, temp = counted
    count = Count(calls=int(calls), ms=float(ms), rows=int(rows), hit=int(hit), read=int(read), temp=int(temp))
    return Statement(queryid=queryid, text=words, count=count)


def text_of(ledger: Ledger, database: str, queryid: int) -> str | None:
    """The text of a statement, if it is known."""
    with ledger.session() as session:
        found = session.get(StatementText, (database, queryid))
    return found.text if found is not None else None


def texts_of(ledger: Ledger, database: str) -> dict[int, str]:
    """The texts of all known statements of a database."""
    statement = select(StatementText.queryid, StatementText.text).where(StatementText.database == database)
    with ledger.session() as session:
        rows = session.execute(statement).all()
    return {row.queryid: row.text for row in rows}


def first_window(ledger: Ledger, database: str) -> datetime | None:
    """When the oldest step that is kept began."""
    statement = select(func.min(StatementWindow.at)).where(StatementWindow.database == database)
    with ledger.session() as session:
        return session.scalars(statement).one()
