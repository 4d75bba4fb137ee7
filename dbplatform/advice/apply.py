"""Following an advice: measured before, made online, measured after, and the receipt kept; or taken back.

What was measured before is in the ledger before anything is changed, with the change itself: a run that was killed is
ended by running it again, whatever the catalog shows meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dbplatform.advice import record
from dbplatform.advice.actions import Action, statement
from dbplatform.advice.change import make, size_of
from dbplatform.advice.errors import NoLongerTrue, NotApplicable, NotFollowed
from dbplatform.advice.measure import NOTABLE, effect, measure, touching
from dbplatform.advice.model import Advice, Named
from dbplatform.ledger.advice import AdviceRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of an advice. ``changed`` is false where it had been done before."""

    record: AdviceRecord
    changed: bool

    @property
    def proposes_undo(self) -> bool:
        """Whether what was measured says that it was of no use."""
        return self.record.state == "applied" and self.record.receipt.get("benefit") is False

    def as_json(self) -> dict[str, Any]:
        """The document of ``advise apply --json``."""
        proposal = f"dbplatform advise undo {self.record.id}" if self.proposes_undo else None
        return {"advice": record.as_json(self.record), "changed": self.changed, "proposal": proposal}


def plan_apply(known: AdviceRecord) -> tuple[str, ...]:
    """The statements that ``apply`` would run; none where it has been applied. Pure.

    Raises ``NotApplicable`` and ``NotFollowed``.
    """
    if known.state == "applied":
        return ()
    if known.state == "undoing":
        raise NotFollowed(
            id=known.id,
            subject=known.subject,
            state=known.state,
            what="apply",
            hint=f"dbplatform advise undo {known.id}",
        )
    if known.action is None:
        raise NotApplicable(id=known.id, subject=known.subject, reason="it is for a person to do", hint=known.sql)
    return (known.sql,)


def apply_advice(
    connection: AutocommitConnection,
    ledger: Ledger,
    known: AdviceRecord,
    fresh: Advice | None,
    statements: Sequence[Named],
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Follow an advice. ``fresh`` is the same one found again under the writer lock, none where it was not found;
    ``statements`` are those of the window, the dearest first.

    Can be run twice, and killed anywhere. Raises ``NotApplicable``, ``NotFollowed``, ``NoLongerTrue`` and what ``make``
    raises.
    """
    if not plan_apply(known):
        return Report(record=known, changed=False)
    if known.state != "applying":
        if fresh is None or fresh.action is None:
            raise NoLongerTrue(
                id=known.id, subject=known.subject, reason="it was not found again", hint="dbplatform advise list"
            )
        named = fresh.statements or _of_table(connection, fresh, statements)
        before = [one.as_json() for one in measure(connection, named)]
        receipt = {
            "statements": [one.as_json() for one in named],
            "before": before,
            "bytes_before": size_of(connection, fresh.action),
            "applied_at": datetime.now(UTC).isoformat(),
        }
        known = record.change(
            ledger,
            known.id,
            state="applying",
            now=datetime.now(UTC),
            action=fresh.action.as_json(),
            undo=fresh.undo.as_json() if fresh.undo is not None else None,
            sql=fresh.sql,
            undo_sql=fresh.undo_sql,
            table_name=list(fresh.table) if fresh.table is not None else None,
            receipt=receipt,
        )
    assert known.action is not None
    action = Action.from_json(known.action)
    started = time.monotonic()
    make(connection, action, _table(known), sleep=sleep)
    receipt = _after(connection, known, action, time.monotonic() - started)
    return Report(
        record=record.change(ledger, known.id, state="applied", now=datetime.now(UTC), receipt=receipt), changed=True
    )


def plan_undo(known: AdviceRecord) -> tuple[str, ...]:
    """The statements that ``undo`` would run; none where it is undone already. Raises ``NotFollowed``. Pure."""
    if known.state == "undone":
        return ()
    if known.state not in ("applied", "applying", "undoing"):
        raise NotFollowed(
            id=known.id, subject=known.subject, state=known.state, what="undo", hint="dbplatform advise list --all"
        )
    if known.undo is None:
        raise NotFollowed(
            id=known.id, subject=known.subject, state="applied for good", what="undo", hint="Nothing was taken away."
        )
    return (statement(Action.from_json(known.undo)),)


def undo_advice(
    connection: AutocommitConnection,
    ledger: Ledger,
    known: AdviceRecord,
    *,
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Take back what an advice has changed. Can be run twice, and killed anywhere. Raises ``NotFollowed`` and what
    ``make`` raises."""
    if not plan_undo(known):
        return Report(record=known, changed=False)
    assert known.undo is not None
    record.change(ledger, known.id, state="undoing", now=datetime.now(UTC))
    make(connection, Action.from_json(known.undo), _table(known), sleep=sleep)
    now = datetime.now(UTC)
    receipt = {"undone_at": now.isoformat()}
    return Report(record=record.change(ledger, known.id, state="undone", now=now, receipt=receipt), changed=True)


def _table(known: AdviceRecord) -> str:
    return Relation(*known.table_name).identifier.as_string() if known.table_name else ""


def _of_table(connection: AutocommitConnection, advice: Advice, statements: Sequence[Named]) -> tuple[Named, ...]:
    """The dearest statements of the table, by which a change that names none is judged."""
    if advice.table is None:
        return ()
    return touching(connection, statements, Relation(*advice.table))


def _after(connection: AutocommitConnection, known: AdviceRecord, action: Action, seconds: float) -> dict[str, Any]:
    """What is measured after the change, and what it was good for."""
    named = [Named(**one) for one in known.receipt.get("statements", ())]
    after = [one.as_json() for one in measure(connection, named)]
    found = effect(known.receipt.get("before", ()), after)
    benefit: bool | None = None
    if action.verb == "create_index":
        benefit = found.gain is not None and found.gain >= NOTABLE
    elif action.verb == "drop_index":
        benefit = not found.worse
    return {
        "after": after,
        "gain": found.gain,
        "worse": list(found.worse),
        "benefit": benefit,
        "bytes_after": size_of(connection, action),
        "seconds": round(seconds, 3),
    }
