"""``dbplatform migrate apply --all`` and ``--owner``: a roll-out, and ``migrate rollouts``, which shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from dbplatform.cli.common import (
    Many,
    bars,
    bold,
    freeze_is_answered,
    note,
    platform_of,
    say,
    show_json,
    show_table,
)
from dbplatform.cli.side_by_side import SideBySide
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.operations import rollout, rollouts
from dbplatform.operations.rollout import Place, RolloutPlan
from dbplatform.operations.rollouts import Record

#: A longer list says nothing more to a person; ``--json`` has all of it.
_SHOWN = 40


def migrate_many(
    context: click.Context,
    many: Many,
    target: str | None,
    canaries: Sequence[str],
    soak: timedelta,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Roll the migrations out; the exit code of what stopped it, 0 when every database is there.

    Databases that are frozen are left out, unless ``--during-freeze`` was given.
    """
    platform = platform_of(context)
    for broken in platform.declarations.broken:
        note(f"left out, because it does not hold: {broken.error}")
    chosen = platform.declarations.chosen(owner=many.owner, without=many.without)
    frozen = [] if dry_run or freeze_is_answered(context) else [*_frozen(chosen)]
    databases = [declared for declared in chosen if declared.name not in frozen]
    plan = rollout.plan_rollout(platform, databases, scope=many.scope, target=target, canaries=canaries)
    if not as_json:
        _show_plan(plan, many.at_once)
    if dry_run:
        if as_json:
            show_json({**plan.as_json(), "parallel": many.at_once})
        return 0

    files = {place.declared.name: place.files for place in plan.places}

    def arguments(name: str) -> list[str]:
        to = ["--target", target] if target is not None else []
        flags = ["--during-freeze"] if freeze_is_answered(context) else []
        return ["migrate", "apply", name, "--files", files[name], *to, *flags]

    def migrate(these: Sequence[Declared], begun: Callable[[str], None]) -> SideBySide:
        return SideBySide(platform, these, arguments, at_once=many.at_once, begun=begun)

    with bars(enabled=not as_json) as above:
        rolled = rollout.roll_out(platform, plan, migrate=migrate, soak=soak, tell=above)
    problem = rolled.problem
    if as_json:
        error = {"error": problem.as_json()} if problem is not None else {}
        show_json({**rolled.record.as_json(), "parallel": many.at_once, **error})
    else:
        say("")
        _show(rolled.record, problem)
    return problem.exit_code if problem is not None else 0


def list_rollouts(context: click.Context, as_json: bool) -> None:
    """The newest roll-outs, and of the newest one each database."""
    found = rollouts.listed(platform_of(context).ledger)
    if as_json:
        show_json({"rollouts": [record.as_json() for record in found]})
        return
    if not found:
        say("Nothing was rolled out yet: dbplatform migrate apply --all")
        return
    rows = [
        (
            record.id,
            record.scope,
            record.target or "newest",
            record.status,
            record.count("done"),
            record.count("failed"),
            len(record.stages) - record.count("done") - record.count("failed"),
            f"{record.started_at:%Y-%m-%d %H:%M} UTC",
        )
        for record in found
    ]
    show_table(None, ("id", "of", "to version", "status", "done", "failed", "untouched", "begun"), rows)
    say("")
    _show(found[0], None)


def _frozen(chosen: Iterable[Declared]) -> Iterable[str]:
    now = datetime.now(UTC)
    for declared in chosen:
        if (freeze := declared.database.frozen(now)) is not None:
            note(f"left out: {declared.name} is frozen {freeze}; to change it all the same: --during-freeze")
            yield declared.name


def _show_plan(plan: RolloutPlan, at_once: int) -> None:
    if plan.goes_on is not None:
        say(f"roll-out {plan.goes_on.id}, begun {plan.goes_on.started_at:%Y-%m-%d %H:%M} UTC, goes on")
    if plan.without_migrations:
        note(f"left out, because they declare no migrations: {', '.join(plan.without_migrations)}")
    done = len(plan.places) - len(plan.pending)
    many = f"{len(plan.places)} databases: {len(plan.pending)} to be migrated, {done} with nothing pending"
    say(bold(f"{many}; {at_once} at a time"))
    _table(plan.places, ("database", "stage", "at version", "pending"), _planned)


def _planned(place: Place) -> tuple[Any, ...]:
    stage = "canary" if place.canary else "then"
    return place.declared.name, stage, place.version or "none", ", ".join(place.pending) or None


def _show(record: Record, problem: PlatformError | None) -> None:
    columns = ("database", "stage", "state", "version", "seconds", "why")
    _table(
        record.stages,
        columns,
        lambda one: (
            one.database,
            "canary" if one.canary else "then",
            one.state,
            one.version or "none",
            one.seconds,
            one.reason or None,
        ),
    )
    states = {state: record.count(state) for state in ("done", "failed", "stopped", "running", "untouched")}
    told = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    say("")
    say(f"roll-out {record.id}: {bold(record.status)}: {told or 'no database'}")
    if problem is not None:
        note(f"error: {problem.message}")
        if problem.hint:
            note(f"  {problem.hint}")


def _table(found: Sequence[Any], columns: tuple[str, ...], row: Callable[[Any], tuple[Any, ...]]) -> None:
    show_table(None, columns, [row(one) for one in found[:_SHOWN]])
    if len(found) > _SHOWN:
        say(f"and {len(found) - _SHOWN} more; --json has them all")
