"""The quarantine as a part of checking a table: planned in the snapshot, done after it, told in the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.quality import record
from dbplatform.quality.attempt import Refused, attempt
from dbplatform.quality.examination import Examination
from dbplatform.quality.quarantine.move import Planned, apply_moves, plan_moves, staged
from dbplatform.quality.quarantine.place import CannotQuarantine
from dbplatform.quality.results import CheckResult, TableResult

_Told = Mapping[str, tuple[int, str | None, str]]
"""For each check by name: how many rows were moved, where to, and a sentence on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A plan with the versions of its rows, or why they could not be read."""

    plan: Planned
    versions: BinaryIO | Refused | None


def planned(examination: Examination) -> TableResult:
    """The result, its messages with what would be moved; nothing is."""
    words: dict[str, str] = {}
    for plan in plan_moves(examination):
        words |= {name: _sentence(reason) for name, reason in plan.refused.items()}
        if plan.place is not None:
            words |= {check.name: f"Its rows would be moved to {plan.place.table}." for check in plan.checks}
    checks = tuple(
        replace(check, message=f"{check.message} {words[check.name]}") if check.name in words else check
        for check in examination.result.checks
    )
    return replace(examination.result, checks=checks)


def prepared(stack: ExitStack, examination: Examination) -> list[Prepared]:
    """What is to be moved, its versions written down while the snapshot is open; files live as long as ``stack``."""
    found = []
    for plan in plan_moves(examination):
        versions: BinaryIO | Refused | None = None
        if plan.place is not None:
            versions = attempt(
                examination.connection,
                examination.relation,
                partial(lambda chosen: stack.enter_context(staged(examination, chosen)), plan),
                masks=bool(examination.masks),
            )
        found.append(Prepared(plan=plan, versions=versions))
    return found


def done(
    target: Target, ledger: Ledger, run_id: str, result: TableResult, work: Sequence[Prepared], *, masks: bool
) -> TableResult:
    """Move the rows, and tell so in the ledger and in the result. Errors: see ``apply_moves``."""
    told: dict[str, tuple[int, str | None, str]] = {}
    for one in work:
        told |= {name: (0, None, _sentence(reason)) for name, reason in one.plan.refused.items()}
        if one.versions is None:
            continue
        if isinstance(one.versions, Refused):
            told |= {check.name: (0, None, f"None was moved: {one.versions.reason}") for check in one.plan.checks}
            continue
        try:
            told |= _moved(target, one.plan, one.versions, run_id, result, masks=masks)
        except CannotQuarantine as refused:
            told |= {check.name: (0, None, f"{refused.message} {refused.hint}") for check in one.plan.checks}
    if not told:
        return result
    messages = record.record_moves(ledger, run_id, result.table, told)
    return replace(result, checks=tuple(_with(check, told, messages) for check in result.checks))


def _moved(
    target: Target, plan: Planned, versions: BinaryIO, run_id: str, result: TableResult, *, masks: bool
) -> _Told:
    """Move the rows of one plan; what is told of each check."""
    moves = apply_moves(target, plan, versions, run_id, masks=masks)
    failed = {check.name: check.failed_rows or 0 for check in result.checks}
    told = {}
    for check in plan.checks:
        moved = moves.moved[check.name]
        reasons = {reason: counts[check.name] for reason, counts in moves.stay.items() if counts[check.name]}
        rest = max(failed[check.name] - moved, 0)
        words = f"{moved:,} of them were moved to {moves.place}"
        if reasons:
            words += (
                f"; {rest:,} stay: {', '.join(f'{min(n, rest):,} because {reason}' for reason, n in reasons.items())}"
            )
        elif rest:
            words += f"; {rest:,} have changed since, or gone"
        told[check.name] = (moved, str(moves.place), f"{words}.")
    return told


def _with(check: CheckResult, told: _Told, messages: Mapping[str, str]) -> CheckResult:
    if check.name not in told:
        return check
    rows, table, _ = told[check.name]
    return replace(check, quarantined_rows=rows, quarantine_table=table, message=messages[check.name])


def _sentence(reason: str) -> str:
    return f"{reason[:1].upper()}{reason[1:].rstrip('.')}."
