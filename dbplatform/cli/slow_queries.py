"""``dbplatform slow-queries``: the statements that take long, and the server's log of them."""

from __future__ import annotations

from datetime import timedelta

import click

from dbplatform.cli.common import (
    DURATION,
    ask_while_frozen,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.monitoring.slow_log import MIN_DURATION, LoggingPlan
from dbplatform.monitoring.statements import Statement
from dbplatform.monitoring.words import value_words
from dbplatform.operations import slow_statements, watching
from dbplatform.operations.platform import Platform


@click.command("slow-queries")
@database_argument
@click.option("--since", type=DURATION, default="1 hour", show_default=True, help="How far to look back.")
@click.option(
    "--min-mean", type=DURATION, default="1s", show_default=True, help="How long a statement takes that is called slow."
)
@click.option("--log", type=click.Choice(["on", "undo"]), help="Have the server log slow statements, or as before.")
@click.option(
    "--log-from", default=MIN_DURATION, show_default=True, help="Which statements are logged: as long, or longer."
)
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str,
    since: timedelta,
    min_mean: timedelta,
    log: str | None,
    log_from: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Statements by pg_stat_statements that take long, select all columns, skip far or come once for each row.

    Counted is what happened between two collections: what is no longer slow leaves the list. --log sets
    log_min_duration_statement and log_statement for this database, and log_line_prefix where it says too little.
    """
    platform, declared = opened(context, database)
    if log is not None:
        if not dry_run:
            ask_while_frozen(context, declared)
        _log(platform, declared, undo=log == "undo", log_from=log_from, dry_run=dry_run, as_json=as_json)
        return
    if dry_run:
        raise UsageError("--dry-run belongs to --log: everything else only reads.")
    metrics = watching.measure(platform, declared)
    found = slow_statements.slow_statements(
        platform, declared, metrics, window=since, min_mean_s=min_mean.total_seconds()
    )
    if as_json:
        show_json(found.as_json())
        return
    for statement in found.statements:
        _show(statement)
    if found.reason is not None:
        say(found.reason)
    elif not found.statements:
        say(f"nothing takes {value_words(found.min_mean_s, 'seconds')} or stands out since {found.since:%H:%M} UTC")


def _show(statement: Statement) -> None:
    count = statement.count
    say(
        f"{statement.queryid}: {value_words(statement.mean_s, 'seconds')} a call, {count.calls:,} calls, "
        f"{value_words(count.ms / 1000, 'seconds')} in all, {count.rows:,} rows"
    )
    say(f"  {statement.text[:300]}")
    for finding in statement.findings:
        say(f"  - {finding}")


def _log(platform: Platform, declared: Declared, *, undo: bool, log_from: str, dry_run: bool, as_json: bool) -> None:
    plan = slow_statements.log_plan(platform, declared, undo=undo, min_duration=log_from)
    if not as_json:
        _show_plan(plan)
    if not dry_run:
        slow_statements.log_apply(platform, declared, plan, undo=undo)
    if as_json:
        show_json({**plan.as_json(), "applied": not dry_run})
    elif plan.changes:
        say("nothing was changed" if dry_run else "done; sessions that are open keep what they have")


def _show_plan(plan: LoggingPlan) -> None:
    if plan.changes:
        show_table(
            None,
            ("scope", "setting", "before", "after", "sql"),
            [
                (one.scope, one.setting, one.before or "not set", one.after or "not set", one.sql)
                for one in plan.changes
            ],
        )
    else:
        say("nothing has to change")
    for reason in plan.left:
        say(f"left as it is: {reason}")
