"""What maintenance plans and reports: items of work by their urgency, what cannot be done, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from dbplatform.postgres.identifiers import Relation

Kind = Literal["analyze", "vacuum", "reindex", "repack", "autovacuum", "statistics"]
#: ``done``; ``not needed``: it was no longer due when its turn came; ``left``: its turn did not come, or a lock or a
#: limit was in the way; ``failed``: PostgreSQL or the program refused it; ``proposed``: it is for a person to do.
State = Literal["done", "not needed", "left", "failed", "proposed"]

KINDS: tuple[Kind, ...] = ("statistics", "autovacuum", "analyze", "vacuum", "repack", "reindex")
QUICK: tuple[Kind, ...] = ("analyze", "vacuum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One piece of work. ``statements`` are what runs, as SQL or as the command line of a program."""

    kind: Kind
    verb: Literal["analyze", "vacuum", "reindex", "drop", "repack", "clean", "set"]
    subject: Relation
    """The table or index that is worked on."""
    table: Relation
    table_oid: int
    subject_oid: int
    priority: int
    """100: the server is about to act by itself, or each write pays for it; 0: it can wait for a year."""
    reason: str
    evidence: Mapping[str, Any]
    """The same facts that are read again behind the work."""
    statements: tuple[str, ...]
    undo: str | None = None
    lock: str
    bytes: int
    """Of the tables and indexes that it reads or writes anew; what the budget counts."""

    @property
    def key(self) -> tuple[str, str, str]:
        """What makes it the same work when it is found again."""
        return self.kind, self.verb, str(self.subject)

    def as_json(self) -> dict[str, Any]:
        """One entry of ``items``."""
        return {
            "kind": self.kind,
            "verb": self.verb,
            "subject": str(self.subject),
            "table": str(self.table),
            "priority": self.priority,
            "reason": self.reason,
            "evidence": dict(self.evidence),
            "sql": "; ".join(self.statements),
            "undo": self.undo,
            "lock": self.lock,
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class NotPossible:
    """What is due, and maintenance cannot do; ``hint`` is what a person may."""

    kind: Kind | Literal["limits"]
    """``limits``: nothing is due; a declared limit cannot be kept."""
    subject: str
    reason: str
    hint: str = ""

    def as_json(self) -> dict[str, Any]:
        """One entry of ``not_possible``."""
        return {"kind": self.kind, "subject": self.subject, "reason": self.reason, "hint": self.hint}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do, the most urgent first."""

    database: str
    items: tuple[Item, ...]
    not_possible: tuple[NotPossible, ...]

    @property
    def bytes(self) -> int:
        """Of all items."""
        return sum(item.bytes for item in self.items)

    def as_json(self) -> dict[str, Any]:
        """The document of ``optimize --dry-run --json``."""
        return {
            "database": self.database,
            "items": [item.as_json() for item in self.items],
            "not_possible": [one.as_json() for one in self.not_possible],
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of an item. ``after`` has the facts of its evidence, read again."""

    item: Item
    state: State
    words: str = ""
    after: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def changes(self) -> str:
        """The facts that are not what they were: ``bytes 9,060,352 -> 1,835,008, bloat 0.81 -> 0.0``."""
        before = self.item.evidence
        return ", ".join(
            f"{name.replace('_', ' ')} {_word(before.get(name))} -> {_word(value)}"
            for name, value in self.after.items()
            if before.get(name) != value
        )

    def as_json(self) -> dict[str, Any]:
        """One entry of ``items`` of a report."""
        return {
            **self.item.as_json(),
            "state": self.state,
            "words": self.words,
            "changes": self.changes,
            "before": dict(self.item.evidence),
            "after": dict(self.after),
            "seconds": round(self.seconds, 3),
        }


def _word(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int | float) else str(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryTime:
    """A declared query: the median of its times in milliseconds; none with the reason where it took too long."""

    name: str
    before_ms: float | None
    after_ms: float | None = None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """One entry of ``queries``."""
        return {"name": self.name, "before_ms": self.before_ms, "after_ms": self.after_ms, "why": self.why}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What one run did. ``stopped`` says why it ended before the work did; none: it did not."""

    database: str
    started_at: datetime
    seconds: float
    outcomes: tuple[Outcome, ...]
    not_possible: tuple[NotPossible, ...]
    queries: tuple[QueryTime, ...]
    stopped: str | None
    paused_s: float

    def of(self, *states: State) -> Sequence[Outcome]:
        """The outcomes of these states."""
        return [one for one in self.outcomes if one.state in states]

    def total(self, fact: str, *, after: bool) -> float:
        """The sum of a fact over what was done, such as ``bytes`` or ``dead_rows``."""
        facts = [one.after if after else one.item.evidence for one in self.of("done")]
        return float(sum(one.get(fact) or 0 for one in facts))

    def as_json(self) -> dict[str, Any]:
        """The document of ``optimize --json``."""
        return {
            "database": self.database,
            "started_at": self.started_at.isoformat(),
            "seconds": round(self.seconds, 3),
            "stopped": self.stopped,
            "paused_s": round(self.paused_s, 3),
            "done": len(self.of("done")),
            "left": len(self.of("left")),
            "failed": len(self.of("failed")),
            "items": [one.as_json() for one in self.outcomes],
            "not_possible": [one.as_json() for one in self.not_possible],
            "queries": [one.as_json() for one in self.queries],
        }
