"""``dbplatform optimize``: ANALYZE, VACUUM, REINDEX and pg_repack where they are due, beside production."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from dbplatform.cli.common import (
    NAME_OF_RELATION,
    SubVerbs,
    ask_while_frozen,
    bars,
    bold,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    opened,
    say,
    show_json,
)
from dbplatform.maintenance.model import NotPossible, Plan, Report
from dbplatform.operations import upkeep
from dbplatform.postgres.identifiers import Relation

table_option = click.option("--table", type=NAME_OF_RELATION, help="One table, with its partitions and indexes.")
now_option = click.option("--now", is_flag=True, help="Also outside the declared window.")


@click.group("optimize", cls=SubVerbs)
def command() -> None:
    """Maintenance: what is due, the most urgent first, within the declared window, budget and limits."""


def _verb(mode: str, words: str) -> Callable[..., int]:
    @command.command(mode, help=words)
    @database_argument
    @table_option
    @now_option
    @dry_run_option
    @during_freeze_option
    @json_option
    @click.pass_context
    def run(
        context: click.Context, database: str, table: Relation | None, now: bool, dry_run: bool, as_json: bool
    ) -> int:
        platform, declared = opened(context, database)
        if dry_run or not as_json:
            planned = upkeep.plan(platform, declared, mode, table=table, count=dry_run)
            show_json(planned.as_json()) if as_json else _show_plan(planned)
            if dry_run:
                return 0
        ask_while_frozen(context, declared)
        with bars():
            report = upkeep.apply(platform, declared, mode, table=table, in_window=not now)
        show_json(report.as_json()) if as_json else _show_report(report)
        return 3 if report.of("failed") else 1 if report.of("left") else 0

    return run


_verb(
    "quick",
    """ANALYZE and VACUUM what needs it. Exit 1 when something is left, 3 when something failed.

    Lock: SHARE UPDATE EXCLUSIVE on one table at a time: reads and writes go on.""",
)
_verb(
    "full",
    """The same, and rebuild bloated indexes (CONCURRENTLY) and tables (pg_repack); settings of large tables.

    Exit 1 when something is left, 3 when something failed.

    Lock: SHARE UPDATE EXCLUSIVE on one table at a time: reads and writes go on. pg_repack: ACCESS EXCLUSIVE for
    moments, asked for in waits of up to 1 s.""",
)


@command.command()
@database_argument
@table_option
@json_option
@click.pass_context
def health(context: click.Context, database: str, table: Relation | None, as_json: bool) -> int:
    """Only look: the score, and what full would do. Exit 1 when something is due."""
    found = upkeep.look(*opened(context, database), table=table)
    if as_json:
        show_json(found.as_json())
    else:
        say(f"{database}: {bold(f'{found.health.score} of 100')}, grade {found.health.grade}")
        for deduction in found.health.deductions:
            say(f"  -{deduction.points} {deduction.metric}: {deduction.cause}")
        _show_plan(found.plan)
    return 1 if found.plan.items or found.plan.not_possible else 0


def _show_plan(plan: Plan) -> None:
    count = len(plan.items)
    say(bold(f"{plan.database}: {count or 'no'} item{'' if count == 1 else 's'} of maintenance due"))
    for item in plan.items:
        say(f"{item.priority:>3}  {item.kind}  {item.subject}")
        say(f"     {item.reason}")
        for statement in item.statements:
            say(f"     {statement};")
        say(f"     lock: {item.lock}" + (f"; undo: {item.undo};" if item.undo else ""))
    _show_not_possible(plan.not_possible)


def _show_report(report: Report) -> None:
    for one in report.outcomes:
        words = f": {one.words}" if one.words else ""
        say(f"{one.state}  {one.item.kind}  {one.item.subject}, {one.seconds:.1f} s{words}")
        if one.state == "done":
            say(f"     {one.changes or 'nothing of what is measured has changed'}")
        elif one.state == "proposed":
            say(f"     {'; '.join(one.item.statements)};  undo: {one.item.undo};")
    for query in report.queries:
        why = f" ({query.why})" if query.why else ""
        say(f"query {query.name}: {_ms(query.before_ms)} -> {_ms(query.after_ms)}{why}")
    _show_not_possible(report.not_possible)
    done, left = len(report.of("done")), len(report.of("left"))
    stopped = f"; it stopped: {report.stopped}" if report.stopped else ""
    say(bold(f"{report.database}: {done} done, {left} left, {len(report.of('failed'))} failed{stopped}"))


def _show_not_possible(found: Sequence[NotPossible]) -> None:
    for one in found:
        say(f"not possible: {one.kind} {one.subject}: {one.reason}. {one.hint}".rstrip())


def _ms(value: float | None) -> str:
    return "unknown" if value is None else f"{value:,.3f} ms"
