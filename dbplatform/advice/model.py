"""One advice: what is wrong and why, the evidence, and the change that mends it with the one that takes it back."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from dbplatform.advice.actions import Action, statement

Kind = Literal[
    "missing_index",
    "foreign_key_index",
    "unused_index",
    "duplicate_index",
    "overlapping_index",
    "invalid_index",
    "autovacuum",
    "bloat",
    "sequence",
    "setting",
    "pools",
]
Severity = Literal["warning", "info"]
Confidence = Literal["proven", "certain", "estimated"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """A statement that the advice is about: its text without values, how often it was called, and with how
    many rows in all."""

    queryid: str
    query: str
    calls: int = 0
    rows: int = 0

    def as_json(self) -> dict[str, Any]:
        """For the ledger and ``--json``."""
        return {"queryid": self.queryid, "query": self.query, "calls": self.calls}


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """One thing to do.

    ``subject`` says what it is about, the same whenever it is found. ``confidence`` is ``proven`` where the planner
    itself took a hypothetical index, ``certain`` where the catalog or the server's counters say so, else ``estimated``.
    Without ``action`` it is for a person to do: ``words`` say what, as SQL where that can be said.
    """

    database: str
    kind: Kind
    subject: str
    severity: Severity
    reason: str
    evidence: Mapping[str, Any]
    lock: str
    cost: str
    confidence: Confidence
    document: str
    action: Action | None = None
    undo: Action | None = None
    words: str = ""
    statements: tuple[Named, ...] = ()
    table: tuple[str, str] | None = None
    """Schema and name of the table whose statements show what an applied advice has done."""

    @property
    def id(self) -> str:
        """The same for the same subject, on every machine: eight hexadecimal digits."""
        name = f"{self.database}/{self.kind}/{self.subject}"
        return hashlib.sha256(name.encode()).hexdigest()[:8]

    @property
    def sql(self) -> str:
        """What has to be run, or done."""
        return statement(self.action) if self.action is not None else self.words

    @property
    def undo_sql(self) -> str | None:
        """What takes it back; none where nothing has to be, or nothing can."""
        return statement(self.undo) if self.undo is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All advice for a database now; ``unexamined`` has the reason for each kind of which too little is known."""

    database: str
    advice: tuple[Advice, ...]
    unexamined: Mapping[Kind, str]
