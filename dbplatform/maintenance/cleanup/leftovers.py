"""A clean-up: what is left over of each kind, what is done about each, and what became of it.

Every kind is a ``Part``: how it is found, and how one of it is removed. A part that cannot be looked at hides no other,
and is never taken for clean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from sqlalchemy.exc import SQLAlchemyError

from dbplatform.errors import PlatformError

Fate = Literal["remove", "leave", "tell"]
Outcome = Literal["removed", "gone", "failed"]
#: What makes a part unknown, and hides no other; the ledger answers some by SQLAlchemy.
_FAILURES: Final = (PlatformError, OSError, SQLAlchemyError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that is left, or several of one kind that go together."""

    kind: str
    name: str
    reason: str
    fate: Fate = "remove"
    """``leave``: somebody is at it, or will be. ``tell``: it is for a person to decide."""
    advice: str = ""
    bytes: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "fate": self.fate,
            "reason": self.reason,
            "advice": self.advice,
            "bytes": self.bytes,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One kind: ``find`` only reads; ``remove`` looks again first, and says whether there was anything to remove."""

    kind: str
    find: Callable[[], Sequence[Leftover]]
    remove: Callable[[Leftover], bool] | None = None
    """None: nothing of it is ever removed."""
    remember: Callable[[], None] | None = None
    """What has to be noted before it is judged, when something is done and not only planned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupPlan:
    """What was found, and the kinds that could not be looked at, with the reason."""

    database: str
    leftovers: tuple[Leftover, ...]
    unknown: Mapping[str, str] = field(default_factory=dict)

    @property
    def due(self) -> tuple[Leftover, ...]:
        """What would be removed."""
        return tuple(one for one in self.leftovers if one.fate == "remove")

    @property
    def told(self) -> tuple[Leftover, ...]:
        """What a person has to decide."""
        return tuple(one for one in self.leftovers if one.fate == "tell")

    def as_json(self) -> dict[str, Any]:
        """The document of ``cleanup --dry-run --json``."""
        return {
            "database": self.database,
            "leftovers": [one.as_json() for one in self.leftovers],
            "unknown": dict(self.unknown),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """What became of one leftover. ``gone``: somebody else was quicker, or needs it again."""

    leftover: Leftover
    outcome: Outcome
    reason: str = ""

    def as_json(self) -> dict[str, Any]:
        return {**self.leftover.as_json(), "outcome": self.outcome, "problem": self.reason}


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupReport:
    """What was done."""

    plan: CleanupPlan
    cleaned: tuple[Cleaned, ...]

    @property
    def removed(self) -> tuple[Leftover, ...]:
        """What is gone now by this clean-up."""
        return tuple(one.leftover for one in self.cleaned if one.outcome == "removed")

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be removed, or not be looked at."""
        failed = [f"{c.leftover.kind} {c.leftover.name}: {c.reason}" for c in self.cleaned if c.outcome == "failed"]
        return (*failed, *(f"{kind}: {reason}" for kind, reason in self.plan.unknown.items()))

    def as_json(self) -> dict[str, Any]:
        """The document of ``cleanup --json``."""
        return {
            "database": self.plan.database,
            "cleaned": [one.as_json() for one in self.cleaned],
            "left": [one.as_json() for one in self.plan.leftovers if one.fate != "remove"],
            "unknown": dict(self.plan.unknown),
        }


def plan_cleanup(database: str, parts: Sequence[Part]) -> CleanupPlan:
    """Look at every part; only reads."""
    leftovers: list[Leftover] = []
    unknown: dict[str, str] = {}
    for part in parts:
        try:
            leftovers += part.find()
        except _FAILURES as error:
            unknown[part.kind] = _words(error)
    return CleanupPlan(database=database, leftovers=tuple(leftovers), unknown=unknown)


def apply_cleanup(plan: CleanupPlan, parts: Sequence[Part]) -> CleanupReport:
    """Remove what was planned and is still so; one that fails hides no other. May be run twice, and killed anywhere."""
    unknown = dict(plan.unknown)
    for part in parts:
        if part.remember is not None and part.kind not in unknown:
            try:
                part.remember()
            except _FAILURES as error:
                unknown[part.kind] = _words(error)
    removing = {part.kind: part.remove for part in parts}
    plan = replace(plan, unknown=unknown)
    return CleanupReport(plan=plan, cleaned=tuple(_cleaned(one, removing[one.kind]) for one in plan.due))


def _cleaned(leftover: Leftover, remove: Callable[[Leftover], bool] | None) -> Cleaned:
    assert remove is not None, "only what can be removed is planned to be"
    try:
        return Cleaned(leftover=leftover, outcome="removed" if remove(leftover) else "gone")
    except _FAILURES as error:
        return Cleaned(leftover=leftover, outcome="failed", reason=_words(error))


def _words(error: Exception) -> str:
    """What PostgreSQL said, without the statement that SQLAlchemy adds."""
    return str(getattr(error, "orig", None) or error).strip()
