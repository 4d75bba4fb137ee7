"""``dbplatform restore``: bring a backup back, beside the database or in its place."""

from __future__ import annotations

import click

from dbplatform.backups.physical.recover import RecoveryReport
from dbplatform.backups.table import TableReport
from dbplatform.cli.common import (
    ask_while_frozen,
    bars,
    confirmed,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    yes_option,
)
from dbplatform.operations import restores


@click.command("restore")
@database_argument
@click.option("--backup", help="The backup; by default newest: the newest complete dump.")
@click.option("--into", help="The new database, on the server of DATABASE.")
@click.option("--table", help="One table alone: back in its place, if it is gone.")
@click.option("--aside", metavar="SCHEMA", help="With --table: into this new schema of DATABASE.")
@click.option("--replace", help="Restore over the database of this name: say its name again.")
@click.option("--time", help="Every commit before this time, ISO 8601 with its offset; or latest.")
@click.option("--lsn", help="As it was at this WAL position, such as 16/B374D848.")
@click.option("--restore-point", help="As it was at a named restore point.")
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def command(
    context: click.Context, /, database: str, dry_run: bool, yes: bool, as_json: bool, **asked: str | None
) -> None:
    """Restore a backup into a database, compared with what was dumped before it gets its name.

    By a time, a position, a restore point or the id of a physical backup the whole server is recovered aside, and the
    database copied out of it.
    """
    if not any(asked[moment] for moment in ("backup", "time", "lsn", "restore_point")):
        asked["backup"] = restores.NEWEST
    platform, declared = opened(context, database)
    plan = restores.plan(platform, declared, restores.Request(**asked), only_look=dry_run)
    if dry_run:
        show_json(plan.as_json()) if as_json else say(f"would restore {plan.words}")
        return
    if not as_json:
        note(f"restoring {plan.words}")
    if plan.into is None or plan.replace:
        ask_while_frozen(context, declared)
    if plan.replace:
        confirmed(f"Drop the database {plan.replace} and put the restored one in its place?", yes=yes)
    with bars():
        report = restores.apply(platform, declared, plan)
    if as_json:
        show_json(report.as_json())
        return
    if isinstance(report, TableReport):
        say(f"restored {plan.words}: {report.rows:,} rows, as they were dumped")
        for missing in report.notes:
            say(f"  {missing}")
    elif isinstance(report, RecoveryReport):
        say(f"restored {plan.words}")
        if report.last_commit is not None:
            say(f"The last commit in it is of {report.last_commit:%Y-%m-%d %H:%M:%S.%f} UTC.")
    else:
        say(f"restored {plan.words}; every table equals what was dumped")
    for table, rows in report.erased_again.items():
        say(f"but for {rows:,} rows of {table} that were erased on purpose since the backup, and are again")
