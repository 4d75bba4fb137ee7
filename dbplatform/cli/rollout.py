"""``dbplatform migrate apply --all`` and ``--owner``: a roll-out, and ``migrate rollouts``, which shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
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
from dbplatform.declaration.loading import Declarations, Declared
from dbplatform.errors import PlatformError
from dbplatform.operations import rollout, rollouts
from dbplatform.operations.rollout_plan import Place, RolloutPlan, plan_rollout
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

    Databases that are frozen are left out, unless ``--during-freeze`` was given; so are those whose declaration does
    not hold, which make it 2 at least where all were meant.
    """
    platform = platform_of(context)
    chosen = platform.declarations.chosen(owner=many.owner, without=many.without)
    broken = _broken(platform.declarations, many)
    frozen = {} if dry_run or freeze_is_answered(context) else _frozen(chosen)
    databases = [declared for declared in chosen if declared.name not in frozen]
    left_out = {**dict.fromkeys(many.without, "was excepted"), **broken, **frozen}
    plan = plan_rollout(platform, databases, scope=many.scope, target=target, canaries=canaries, left_out=left_out)
    for name, why in plan.left_out.items():
        note(f"left out: {name} {why}")
    incomplete = 2 if broken and many.owner is None else 0
    if not as_json:
        _show_plan(plan, many.at_once)
    if dry_run:
        if as_json:
            show_json({**plan.as_json(), "parallel": many.at_once})
        return incomplete

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
        show_json({**rolled.record.as_json(), "left_out": plan.left_out_json, "parallel": many.at_once, **error})
    else:
        say("")
        _show(rolled.record, problem, plan.left_out)
    return max(problem.exit_code if problem is not None else 0, incomplete)


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
    _show(found[0], None, {})


def _broken(declarations: Declarations, many: Many) -> dict[str, str]:
    """Those whose declaration does not hold, and why. Whose they are is not known: an owner hears of all of them."""
    return {
        # A second declaration of the same name goes by its folder.
        one.folder if one.name is None or one.name in declarations.by_name else one.name: f"does not hold: {one.error}"
        for one in declarations.broken
        if not {one.name, one.folder} & {*many.without}
    }


def _frozen(chosen: Iterable[Declared]) -> dict[str, str]:
    now = datetime.now(UTC)
    return {
        declared.name: f"is frozen {freeze}; to change it all the same: --during-freeze"
        for declared in chosen
        if (freeze := declared.database.frozen(now)) is not None
    }


def _show_plan(plan: RolloutPlan, at_once: int) -> None:
    if plan.goes_on is not None:
        say(f"roll-out {plan.goes_on.id}, begun {plan.goes_on.started_at:%Y-%m-%d %H:%M} UTC, goes on")
    done = len(plan.places) - len(plan.pending)
    many = f"{len(plan.places)} databases: {len(plan.pending)} to be migrated, {done} with nothing pending"
    say(bold(f"{many}; {at_once} at a time"))
    _table(plan.places, ("database", "stage", "at version", "pending"), _planned)


def _planned(place: Place) -> tuple[Any, ...]:
    stage = "canary" if place.canary else "then"
    return place.declared.name, stage, place.version or "none", ", ".join(place.pending) or None


def _show(record: Record, problem: PlatformError | None, left_out: Mapping[str, str]) -> None:
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
    if left_out:
        say("")
        _table([*left_out.items()], ("left out", "why"), lambda one: one)
    states = {state: record.count(state) for state in ("done", "failed", "stopped", "running", "untouched")}
    told = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    say("")
    others = f"; {len(left_out)} left out" if left_out else ""
    say(f"roll-out {record.id}: {bold(record.status)}: {told or 'no database'}{others}")
    if problem is not None:
        note(f"error: {problem.message}")
        if problem.hint:
            note(f"  {problem.hint}")


def _table(found: Sequence[Any], columns: tuple[str, ...], row: Callable[[Any], tuple[Any, ...]]) -> None:
    show_table(None, columns, [row(one) for one in found[:_SHOWN]])
    if len(found) > _SHOWN:
        say(f"and {len(found) - _SHOWN} more; --json has them all")
