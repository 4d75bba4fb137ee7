"""How far the watch over each database has come, in the ledger: what it has seen is not read again.

What ended shortly before the last look is read once more, which changes nothing, so that nothing is missed where two
processes end at the same moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Watch

_OVERLAP = timedelta(minutes=5)
#: The first look at a database goes back so far, and none goes back further.
_FAR = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What is known when a look begins."""

    checks_since: datetime
    """Checks that ended from then on have to be read."""
    was_there: bool
    """The database could be measured once."""


def begin(ledger: Ledger, database: str, now: datetime) -> Look:
    """Note that a look begins; a database that hangs goes to the end of the queue."""
    statement = (
        insert(Watch)
        .values(database=database, looked_at=now)
        .on_conflict_do_update(index_elements=[Watch.database], set_={"looked_at": now})
        .returning(Watch.checks_until, Watch.measured_at)
    )
    with ledger.session() as session:
        checks_until, measured_at = session.execute(statement).one()
    return Look(checks_since=_since(checks_until, now), was_there=measured_at is not None)


def end(ledger: Ledger, database: str, now: datetime, *, runs_seen: bool, measured: bool) -> None:
    """Note what the look has seen; called when its alerts are kept."""
    with ledger.session() as session:
        watch = session.get_one(Watch, database, with_for_update=True)
        watch.checks_until = now
        watch.runs_until = now if runs_seen else watch.runs_until
        watch.measured_at = now if measured else watch.measured_at


def longest_ago_first(ledger: Ledger, databases: Sequence[str]) -> list[str]:
    """The databases in the order in which they are to be looked at, so that none starves behind slow ones."""
    with ledger.session() as session:
        known = dict(session.execute(select(Watch.database, Watch.looked_at)).all())
    return sorted(databases, key=lambda name: known[name].timestamp() if name in known else 0.0)


def runs_since(ledger: Ledger, databases: Sequence[str], now: datetime) -> dict[str, datetime]:
    """From when on the runs of each of these databases have to be read."""
    with ledger.session() as session:
        known = dict(session.execute(select(Watch.database, Watch.runs_until)).all())
    return {name: _since(known.get(name), now) for name in databases}


def _since(until: datetime | None, now: datetime) -> datetime:
    return now - _FAR if until is None else max(min(until, now) - _OVERLAP, now - _FAR)
