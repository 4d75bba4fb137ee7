"""What waits for a person's decision, the most urgent first, each with the command to type.

Not everything that was noticed: what the platform does by itself, or did, is no decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from dbplatform.advice import record as advice
from dbplatform.declaration.loading import Declared
from dbplatform.ledger.advice import AdviceRecord
from dbplatform.operations import access_reviews, reviews
from dbplatform.operations.capacity import Capacity
from dbplatform.operations.platform import Platform
from dbplatform.reporting.capacity import runs_out
from dbplatform.reporting.month import Month, Skipped
from dbplatform.reporting.plots import amount
from dbplatform.reporting.words import counted, duration, utc

Urgency = Literal["now", "this week", "this month"]
_ORDER: Final = ("now", "this week", "this month")
_MOST_OF_A_KIND: Final = 3
#: A statement that takes so many times as long, and so much of all time, is worth a look.
_SLOWER, _SHARE = 1.5, 0.05
#: Where roles are declared, somebody reviews as often who may do what.
_REVIEW_ACCESS: Final = timedelta(days=90)

#: The first command for an alert of a metric; for others the health, which says what helps.
_FIRST: Final = {
    "dead_tuple_ratio": "optimize quick", "vacuum_age_s": "optimize quick", "table_bloat_ratio": "optimize full",
    "index_bloat_ratio": "optimize full", "xid_age_ratio": "optimize full", "multixact_age_ratio": "optimize full",
    "backup_age_s": "backup create", "drill_age_s": "drill", "recovery_time_s": "drill",
    "connections_used_ratio": "connections", "longest_transaction_s": "connections",
    "longest_lock_wait_s": "connections", "idle_in_transaction_s": "connections", "slow_statement_s": "slow-queries",
    "check": "report show",
    "unreviewed": "report show", "sequence_used_ratio": "advise list", "cache_hit_ratio": "advise list",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One thing to decide: what, why now, and what to type. ``by``: when it may be too late, where that is known."""

    urgency: Urgency
    title: str
    why: str
    command: str
    by: datetime | None = None
    also: tuple[str, ...] = ()
    """What else asks for the same command."""

    def as_json(self) -> dict[str, Any]:
        """One entry of ``decisions``."""
        return {
            "urgency": self.urgency,
            "title": self.title,
            "why": self.why,
            "also": list(self.also),
            "command": self.command,
            "by": self.by.isoformat() if self.by else None,
        }


def decisions(
    platform: Platform, declared: Declared, month: Month, capacity: Capacity | None, *, now: datetime
) -> tuple[Decision, ...]:
    """Of the state as it is now, whichever month is looked at; those that ask for the same command are one."""
    found = (
        *_safety(declared, month, now),
        *_alerts(month),
        *(_running_out(capacity, now) if capacity is not None else ()),
        *_care(month),
        *_reviews(platform, declared),
        *_access(platform, declared, now),
        *_advice(advice.advice_of(platform.ledger, declared.name, "open")),
        *_slower(month),
    )
    return tuple(sorted(_as_one(found), key=lambda one: _ORDER.index(one.urgency)))


def _as_one(found: Iterable[Decision]) -> Iterable[Decision]:
    """Of the same command the most urgent one, with what the others say."""
    by_command: dict[str, list[Decision]] = {}
    for one in found:
        by_command.setdefault(one.command, []).append(one)
    for those in by_command.values():
        first, *others = sorted(those, key=lambda one: _ORDER.index(one.urgency))
        yield replace(first, also=tuple(f"{one.title}. {one.why}" for one in others))


def _safety(declared: Declared, month: Month, now: datetime) -> Iterable[Decision]:
    name, safety, environment = declared.name, month.safety, declared.database.connection.environment
    if declared.database.backups is None:
        if environment == "production":
            yield Decision(
                urgency="now",
                title="There are no backups",
                why="The database is in production, and none are declared: what is lost is lost.",
                command=f"edit {declared.document.shown}: backups: {{destination: ...}}",
            )
        return
    drill, create = f"dbplatform drill {name}", f"dbplatform backup create {name}"
    if safety.newest_at is None:
        yield Decision(urgency="now", title="There is no backup", why="None was ever completed.", command=create)
    elif now - safety.newest_at > timedelta(days=2):
        age = duration((now - safety.newest_at).total_seconds())
        yield Decision(
            urgency="now",
            title=f"The newest backup is {age} old",
            why="All that was written since would be lost without WAL. See why none was made: dbplatform backup list "
            f"{name}.",
            command=create,
        )
    if safety.damage:
        yield Decision(urgency="now", title="The newest backup is damaged", why=safety.damage, command=create)
    if safety.newest_at is not None and safety.proven_at is None:
        yield Decision(
            urgency="now",
            title="No backup was ever proven",
            why="Nobody knows that one can be restored.",
            command=drill,
        )
    elif safety.failed_at is not None and (safety.proven_at is None or safety.proven_at < safety.failed_at):
        words = f"{safety.drills_failed} of {counted(safety.drills, 'drill')} of the month proved nothing"
        last = f"; the last proof is of {utc(safety.proven_at)}" if safety.proven_at else ""
        yield Decision(urgency="now", title="A restore did not prove its backup", why=f"{words}{last}.", command=drill)


def _alerts(month: Month) -> Iterable[Decision]:
    for course in month.alerts:
        for alert in course.open[:1]:
            critical = alert.severity == "critical"
            more = f" It fired {course.episodes} times this month." if course.episodes > 1 else ""
            others = f" {len(course.open)} such alerts are open." if len(course.open) > 1 else ""
            yield Decision(
                urgency="now" if critical else "this week",
                title=f"{_words(course.metric)}: {alert.severity} since {alert.since:%d %B}",
                why=f"{_sentence(alert.cause)}{more}{others} {alert.advice}".strip(),
                command=f"dbplatform {_FIRST.get(course.metric, 'health')} {month.database}",
            )


def _running_out(capacity: Capacity, now: datetime) -> Iterable[Decision]:
    for limit in capacity.near:
        assert limit.days is not None
        assert limit.days.low is not None
        of = f"{amount(limit.used, limit.unit)} of {amount(limit.of, limit.unit)} are used. " if (
            limit.used is not None and limit.of is not None
        ) else ""  # fmt: skip
        yield Decision(
            urgency="now" if limit.days.low <= 14 else "this month" if limit.days.low > 45 else "this week",
            title=runs_out(limit),
            why=f"{of}{limit.advice}",
            command=limit.command or f"dbplatform capacity {capacity.database}",
            by=now + timedelta(days=limit.days.low),
        )


def _care(month: Month) -> Iterable[Decision]:
    name = month.database
    if not month.runs:
        yield Decision(
            urgency="this week",
            title="No maintenance ran" + ("" if month.is_over else " so far"),
            why="Bloat and statistics are left to autovacuum alone. See why: the schedule may be off, or every run may "
            "have been frozen.",
            command=f"dbplatform optimize health {name}",
        )
    proposed = [one for one in month.skipped if one.state == "proposed"]
    for one in proposed[:_MOST_OF_A_KIND]:
        yield Decision(
            urgency="this month",
            title=f"{_words(one.kind)} of {one.subject} is proposed",
            why=_sentence(one.reason),
            command=one.statement or f"dbplatform optimize health {name}",
        )
    reasons: dict[str, list[Skipped]] = {}
    for one in month.skipped:
        if one.state in ("left", "failed", "not possible") and one.times > (1 if one.state == "left" else 0):
            reasons.setdefault(one.reason, []).append(one)
    for reason, those in sorted(reasons.items(), key=lambda pair: -len(pair[1]))[:_MOST_OF_A_KIND]:
        first, others = those[0], len(those) - 1
        what = f"{_words(first.kind)} of {first.subject}" + (f" and {others} more" if others else "")
        times = max(one.times for one in those)
        often = f"{times} times" if times > 1 else ""
        hint = next((one.hint for one in those if one.hint), "")
        yield Decision(
            urgency="this week" if first.state == "failed" else "this month",
            title=f"{what} was not done",
            why=" ".join(part for part in (_sentence(reason), f"It was due {often}." if often else "", hint) if part),
            command=f"dbplatform optimize full {name}",
        )


def _reviews(platform: Platform, declared: Declared) -> Iterable[Decision]:
    waiting = reviews.waiting(platform.ledger, declared.name)
    if waiting:
        newest = waiting[-1]
        yield Decision(
            urgency="this week",
            title=f"{counted(len(waiting), 'failing report')} of data quality "
            f"{'waits' if len(waiting) == 1 else 'wait'} for a review",
            why=f"The oldest is of {utc(waiting[0].started_at)}. Read it first: dbplatform report show "
            f"{declared.name}.",
            command=f"dbplatform report review {newest.run_id[:8]} --and-earlier --comment TEXT",
        )


def _access(platform: Platform, declared: Declared, now: datetime) -> Iterable[Decision]:
    if declared.database.roles is None:
        return
    last = access_reviews.last_review(platform.ledger, declared.name)
    if last is None or now - last.at > _REVIEW_ACCESS:
        yield Decision(
            urgency="this month",
            title="Who may do what waits for a review",
            why=f"The last one is of {utc(last.at)}, by {last.by}." if last else "Nobody has reviewed it yet.",
            command=f"dbplatform roles review {declared.name} --comment TEXT",
        )


def _advice(open_: Sequence[AdviceRecord]) -> Iterable[Decision]:
    warnings = [one for one in open_ if one.severity == "warning"]
    for one in warnings[:_MOST_OF_A_KIND]:
        yield Decision(
            urgency="this month",
            title=f"{_words(one.kind)}: {one.subject}",
            why=_sentence(one.reason),
            command=f"dbplatform advise apply {one.id}" if one.action is not None else one.sql,
        )


def _slower(month: Month) -> Iterable[Decision]:
    for one in month.statements:
        if one.slower is not None and one.slower >= _SLOWER and one.share >= _SHARE:
            assert one.early is not None
            assert one.late is not None
            yield Decision(
                urgency="this week",
                title=f"A statement takes {one.slower:.1f} times as long as at the beginning of the month",
                why=f"{duration(one.early)} became {duration(one.late)} in the mean, {one.share:.0%} of all time: "
                f"{one.statement.text[:160]}",
                command=f"dbplatform explain {month.database} -- {one.statement.queryid}",
            )


def _words(name: str) -> str:
    """``Table bloat ratio``."""
    words = name.replace("_", " ")
    return f"{words[:1].upper()}{words[1:]}"


def _sentence(text: str) -> str:
    said = text.strip().rstrip(".")
    return f"{said[:1].upper()}{said[1:]}." if said else ""
